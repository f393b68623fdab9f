"""From scratch: a small model answers the questions of easy-VQA, a data set of drawn shapes that PyPI has.

    pip install easy-vqa
    python recipes/answer_easy_vqa.py easy-vqa
    siglip train recipes/answer_easy_vqa.py --out runs/easy-vqa

The package holds 4,000 pictures with 38,575 questions to train on, and 1,000 with 9,673 to be tested on; each picture
shows one shape. The command above writes rows {"image", "prefix", "suffix"} that point to its pictures. Pictures are
mirrored at random, since no question asks for left or right.
"""

import json
import sys
from pathlib import Path

from siglip.config import SiglipVisionConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.data import Augment
from siglip.files import write_text
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    words = 8000
    vision = SiglipVisionConfig(
        image_size=64,
        patch_size=16,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    decoder = GemmaConfig(
        vocab_size=words + 2,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=64,
    )
    return TrainConfig(
        task="generation",
        model=ModelSpec(
            config=PaliGemmaConfig(vision_config=vision, text_config=decoder, image_token_index=words + 2),
            preparation="nano",
        ),
        data=DataSpec(
            train="easy-vqa/train/train.jsonl",
            held_out="easy-vqa/held_out/held_out.jsonl",
            augment=Augment(flip=0.5),
            workers=0,
        ),
        optimizer=OptimizerSpec(lr=2e-3, weight_decay=0.05, warmup_steps=100),
        steps=1200,
        batch_size=64,
        ema=0.99,
        evaluate_every=1200,
        log_every=100,
    )


def main(folder: Path, train: int | None = None, held_out: int | None = None) -> None:
    """Write train/train.jsonl, and the test part as held_out/held_out.jsonl: all questions, or the first ones."""
    import easy_vqa

    for part, most, asked, pictures in (
        ("train", train, easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()),
        ("held_out", held_out, easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()),
    ):
        rows = [
            {"image": pictures[number], "prefix": f"answer en {question}", "suffix": answer}
            for question, answer, number in zip(*asked, strict=True)
        ][:most]
        (folder / part).mkdir(parents=True, exist_ok=True)
        write_text(folder / part / f"{part}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
        print(f"{folder / part / part}.jsonl: {len(rows)} rows", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "easy-vqa"))
