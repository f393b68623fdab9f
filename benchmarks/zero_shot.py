"""How fast is zero-shot classification of many pictures against transformers' pipeline, called as documented?

`pipeline("zero-shot-image-classification", model=folder)(list of PIL pictures, candidate_labels=labels)` on both sides,
from one checkpoint folder: 64 pictures, 100 labels, towers of six layers, 384 wide, random weights. Labels are new in
every turn, so nothing is remembered from the turn before; how long a repeated call takes is printed beside.
"""

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from benchmarks.harness import arguments, compare, publish, race, timed
from siglip import (
    ImageSettings,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    SiglipTextConfig,
    SiglipTokenizer,
    SiglipVisionConfig,
    TextSettings,
    pipeline,
)

TASK = "zero-shot-image-classification"
# transformers' pipeline pads to this, whatever the checkpoint says
_CONTEXT_LENGTH = 64


def save_checkpoint(folder: Path, *, width: int, depth: int, image_size: int) -> None:
    """Random towers with the built-in model's vocabulary."""
    vocabulary = SiglipTokenizer.from_pretrained("nano").vocab_file
    tokenizer = SiglipTokenizer(vocabulary, TextSettings(context_length=_CONTEXT_LENGTH))
    shape: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // 64,
    }
    config = SiglipConfig(
        text_config=SiglipTextConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=_CONTEXT_LENGTH, **shape),
        vision_config=SiglipVisionConfig(image_size=image_size, **shape),
    )
    SiglipModel(config, generator=torch.Generator().manual_seed(0)).save_pretrained(folder)
    images = SiglipImageProcessor(ImageSettings(image_size=image_size))
    SiglipProcessor(images, tokenizer).save_pretrained(folder)


def call(classify: Callable[..., Any], pictures: list[Image.Image], labels: int, fresh: count) -> Any:
    """One call with labels never used before."""
    number = next(fresh)
    return classify(pictures, candidate_labels=[f"object {number} {label}" for label in range(labels)])


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    transformers.logging.set_verbosity_error()
    pictures, labels, shape = 64, 100, {"width": 384, "depth": 6, "image_size": 224}
    if options.quick:
        pictures, labels, shape = 2, 3, {"width": 64, "depth": 1, "image_size": 32}
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (384, 512, 3), np.uint8)) for _ in range(pictures)]
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), **shape)
        ours, peer = pipeline(TASK, folder), transformers.pipeline(TASK, model=folder)
        one = images[:1]
        worst = max(
            abs(mine["score"] - theirs["score"])
            for mine, theirs in zip(ours(one, ["a", "b"])[0], peer(one, candidate_labels=["a", "b"])[0], strict=True)
        )
        fresh, mine = count(), count()
        timings = race(
            {"peer": lambda: call(peer, images, labels, fresh), "ours": lambda: call(ours, images, labels, mine)},
            rounds=options.rounds or (1 if options.quick else 3),
            warm_up=False,
        )
        again = timed(lambda: call(ours, images, labels, count()))
    row = compare(f"{pictures} pictures x {labels} labels", timings, peer="peer", ours="ours", goal=20.0)
    facts = {"largest difference of a score": worst, "ours, called again with known labels, s": round(again.wall_s, 3)}
    publish("Zero-shot pipeline", [row], facts, quick=options.quick)


if __name__ == "__main__":
    main()
