"""How fast is locked-image tuning when pictures' vectors are looked up, against running the image tower in every step?

A turn is one update of the text tower beside a locked base/16-224 image tower, random weights, 16 text tokens as in the
paper's ablations, batches of 32 on the CPU. Reading and decoding of pictures, which the cache saves as well, is not
counted. Both are ours: no peer has such a cache.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import Contestant, Row, arguments, compare, publish, race
from benchmarks.towers import TINY
from siglip import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig
from siglip.data import Loader, Source, open_source
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.learner import Learner
from siglip.training.loop import loader_settings
from siglip.training.tasks import build


def write_pairs(folder: Path, count: int) -> Path:
    noise = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        pixels = noise.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


def a_step(config: TrainConfig, source: Source, folder: Path) -> Contestant:
    model, processor = build(config)
    assert isinstance(model, SiglipModel)
    cache = ImageCache(folder, source, model, processor) if config.caches_images else None
    settings = loader_settings(config, images=cache is None)
    if cache is not None:
        cache.fill(replace(settings, images=True), torch.device("cpu"), lambda done: None)
    batch = next(iter(Loader(source if cache is None else cache.subset(), processor, settings)))
    learner = Learner(model, processor, config, torch.device("cpu"), cache)
    return lambda: learner.update(batch, 0)["loss"]


def measure(shape: SiglipConfig, rows: int, rounds: int) -> tuple[list[Row], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        pairs = write_pairs(Path(name) / "pairs", rows)
        looked_up = TrainConfig(
            model=ModelSpec(config=shape, preparation="nano"),
            data=DataSpec(train=str(pairs), workers=0),
            trainable="text",
            optimizer=OptimizerSpec(lr=1e-5),
            batch_size=rows,
        )
        running = replace(looked_up, data=replace(looked_up.data, cache_images=False))
        source = open_source(str(pairs))
        turns = {
            "running": a_step(running, source, Path(name) / "vectors"),
            "looked up": a_step(looked_up, source, Path(name) / "vectors"),
        }
        first = {f"loss of the first step, {name}": turn() for name, turn in turns.items()}
        timings = race(turns, rounds=rounds, warm_up=False)
    return [compare("looked up / running", timings, peer="running", ours="looked up", goal=5.0)], first


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    shape, rows = SiglipConfig(text_config=SiglipTextConfig(max_position_embeddings=16)), 32
    if options.quick:
        text = SiglipTextConfig(**TINY, vocab_size=8000, max_position_embeddings=8)
        shape, rows = SiglipConfig(text_config=text, vision_config=SiglipVisionConfig(**TINY, image_size=32)), 2
    found, facts = measure(shape, rows, options.rounds or (1 if options.quick else 5))
    publish(f"Tuning beside a locked image tower of base/16-224, {rows} pairs", found, facts, quick=options.quick)


if __name__ == "__main__":
    main()
