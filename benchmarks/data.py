"""How many samples a second does the loader make, against the webdataset library with the same work and workers?

A turn is one pass over generated data by two worker processes, from starting them to the last batch: shuffle, read,
decode, squash, draw a caption, tokenise, batch. Ours reads the same shards, and the same pictures as a folder with
captions beside them. The library shuffles shards and then through a buffer of 1,000; ours shuffles over all.
"""

import os
import random
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image
from torch import Tensor

from benchmarks.harness import Row, arguments, compare, publish, race
from siglip.config import ImageSettings, TextSettings
from siglip.data import LoaderSettings, Source, open_source
from siglip.data.batch import BatchMaker
from siglip.data.order import Stream
from siglip.data.pack import pack
from siglip.data.workers import in_workers
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer

BATCH, WORKERS = 64, 2
NANO = Path(__file__).parent.parent / "siglip" / "assets" / "nano"
_COLOURS = ("red", "green", "blue", "yellow", "black", "white")


def make_pictures(folder: Path, count: int, size: tuple[int, int], kind: str) -> None:
    """Soft random shapes, which compress about as real pictures do, each with a caption beside it."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:06d}.{kind}", **({"quality": 90} if kind == "jpg" else {}))
        words = " ".join(_COLOURS[index] for index in generator.integers(0, len(_COLOURS), 3))
        (folder / f"{number:06d}.txt").write_text(f"a picture of {words}")


def our_pass(source: Source, processor: SiglipProcessor) -> int:
    """Samples made in a pass, as Loader makes them; Loader itself would be stopped while it makes the next pass."""
    maker = BatchMaker(source, processor, LoaderSettings(reduced=False), training=True)
    stream = Stream(len(source), source.order, seed=0)
    visits = (stream.visits(range(start, start + BATCH)) for start in range(0, len(source), BATCH))
    return sum(len(batch) for batch in in_workers(maker.batch, visits, WORKERS))


def peer_pass(shards: list[str], processor: SiglipProcessor) -> int:
    """Samples made by webdataset in a pass, as its documentation shows."""
    size = processor.image_processor.settings.image_size

    def prepared(sample: tuple[Image.Image, dict[str, Any]]) -> tuple[np.ndarray, str]:
        image, facts = sample
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)), random.choice(facts["captions"])

    def tokenised(batch: tuple[Tensor, list[str]]) -> tuple[Tensor, Tensor]:
        pixels, captions = batch
        return pixels, processor.tokenizer(captions, return_tensors="pt").input_ids

    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards))
        .shuffle(1000)
        .decode("pilrgb")
        .to_tuple("jpg;png", "json")
        .map(prepared)
        .batched(BATCH)
        .map(tokenised)
    )
    return sum(len(pixels) for pixels, _ in webdataset.WebLoader(dataset, batch_size=None, num_workers=WORKERS))


def measure(
    name: str, count: int, pictures: tuple[tuple[int, int], str], image_size: int, rounds: int
) -> Iterator[Row]:
    """Two rows: our shards and our folder, both against the library's shards."""
    settings = ImageSettings(image_size=image_size)
    tokenizer = SiglipTokenizer(NANO / "spiece.model", TextSettings(context_length=16))
    processor = SiglipProcessor(SiglipImageProcessor(settings), tokenizer)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SIGLIP_CACHE"] = temporary
        folder, shards = Path(temporary, "folder"), Path(temporary, "shards")
        folder.mkdir()
        make_pictures(folder, count, *pictures)
        pack(open_source(folder), shards, shard_size=count // 8, workers=WORKERS)
        files = sorted(str(path) for path in shards.glob("*.tar"))
        turns = {
            "webdataset": partial(peer_pass, files, processor),
            "shards": partial(our_pass, open_source(shards), processor),
            "folder": partial(our_pass, open_source(folder), processor),
        }
        made = {turn: run() for turn, run in turns.items()}
        assert len(set(made.values())) == 1, f"the contestants do not make equally many samples: {made}"
        timings = race(turns, rounds=rounds, warm_up=False)
    for ours in ("shards", "folder"):
        yield compare(f"{name}, our {ours}", timings, peer="webdataset", ours=ours, goal=1.0)


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    rounds = options.rounds or (1 if options.quick else 7)
    icons, photos = (128, 64) if options.quick else (4096, 1024)
    rows = [
        *measure("icons 64 px", icons, ((64, 64), "png"), 64, rounds),
        *measure("photos 500 px", photos, ((500, 375), "jpg"), 224, rounds),
    ]
    facts: dict[str, Any] = {"webdataset": webdataset.__version__, "workers": WORKERS, "batch": BATCH}
    for row, count in zip(rows, (icons, icons, photos, photos), strict=True):
        facts[f"{row.what}: samples/s, library and ours"] = [round(count / row.peer_s), round(count / row.ours_s)]
    publish("Loading: decode, squash, tokenise, batch", rows, facts, quick=options.quick)


if __name__ == "__main__":
    main()
