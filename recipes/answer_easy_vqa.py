"""From scratch: a small model answers the questions of easy-VQA, a data set of drawn shapes that PyPI has.

    pip install easy-vqa
    python recipes/answer_easy_vqa.py easy-vqa
    siglip train recipes/answer_easy_vqa.py --out runs/easy-vqa

The package holds 4,000 pictures with 38,575 questions to train on, and 1,000 with 9,673 to be tested on; each picture
shows one shape. The command above writes rows {"image", "prefix", "suffix"} that point to its pictures. Three of four
questions want yes or no, and a model that has few others is long in telling shapes apart: so what a picture's open
questions name answers all forms of asking for its shape, too. Pictures are cropped and mirrored at random, since no
question asks for left or right.
"""

import json
import sys
from pathlib import Path

from siglip.config import SiglipVisionConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.data import Augment
from siglip.files import write_text
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
# how the questions of the set ask for a shape; the last one where the colour is known
SHAPE_FORMS = (
    *("what shape is in the image?", "what shape does the image contain?", "what shape is present?"),
    "what is the {} shape?",
)
# question, answer, and the number of the picture
Question = tuple[str, str, int]


def recipe() -> TrainConfig:
    words = 8000
    vision = SiglipVisionConfig(
        image_size=64,
        patch_size=8,
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
        max_position_embeddings=96,
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
            augment=Augment(flip=0.5, crop_area=0.75),
            workers=0,
        ),
        optimizer=OptimizerSpec(lr=1.5e-3, weight_decay=0.05, warmup_steps=100),
        steps=5000,
        batch_size=64,
        precision="bfloat16",
        ema=0.99,
        evaluate_every=5000,
        log_every=100,
    )


def main(folder: Path, train: int | None = None, held_out: int | None = None) -> None:
    """Write train/train.jsonl, and the test part as held_out/held_out.jsonl: all questions, or the first ones."""
    import easy_vqa

    asked = list(zip(*easy_vqa.get_train_questions(), strict=True))[:train]
    tested = list(zip(*easy_vqa.get_test_questions(), strict=True))[:held_out]
    for part, questions, pictures in (
        ("train", taught(asked), easy_vqa.get_train_image_paths()),
        ("held_out", tested, easy_vqa.get_test_image_paths()),
    ):
        rows = [
            {"image": pictures[number], "prefix": f"answer en {question}", "suffix": answer}
            for question, answer, number in questions
        ]
        (folder / part).mkdir(parents=True, exist_ok=True)
        write_text(folder / part / f"{part}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
        print(f"{folder / part / part}.jsonl: {len(rows)} rows", file=sys.stderr)


def taught(asked: list[Question]) -> list[Question]:
    """The questions, and all forms of asking for a shape that an open one of them tells."""
    known: dict[int, set[str]] = {}
    for question, answer, number in asked:
        if answer not in ("yes", "no"):
            # an open question is right about what it names
            known.setdefault(number, set()).update((*question.strip("?").split(), answer))
    told: list[Question] = []
    for number, words in known.items():
        shape, colour = ("".join(words.intersection(names)) for names in (SHAPES, COLOURS))
        told += [(form.format(colour), shape, number) for form in SHAPE_FORMS if shape and (colour or "{" not in form)]
    return list(dict.fromkeys([*asked, *told]))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "easy-vqa"))
