"""How fast does a folder of 12-megapixel JPEGs become vectors, or a library, against the loop of transformers' users?

Files on disk in, unit vectors out. The peer's side is the loop that its users write: open, prepare and embed one
picture after the other. Ours is Embedder, with and without decoding at reduced scale, and `siglip index`, which also
hashes each file and makes a thumbnail. Both sides have one checkpoint, the built-in model "nano", and then towers of
the size of base/16-224 with random weights, ours in float32 and in its default. What a library measures once for a
model (the names of absent things) is not in these turns; it is told beside them.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image, ImageDraw

from benchmarks.harness import Row, arguments, compare, publish, race, timed
from benchmarks.zero_shot import save_checkpoint
from siglip import Embedder, SiglipModel, SiglipProcessor
from siglip.search import Library


def photograph(size: tuple[int, int], seed: int) -> Image.Image:
    """A picture that is as hard to decode as a photograph: soft light, edges, texture and grain."""
    random = np.random.default_rng(seed)
    width, height = size
    light = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((4, 90.0), (32, 40.0), (256, 15.0)):
        coarse = random.integers(0, 256, (cells * height // width, cells, 3), np.uint8)
        light += weight / 255 * np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    picture = Image.fromarray(light.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(40):
        corner = random.integers(0, (width, height))
        extent = random.integers(width // 100, width // 4, 2)
        draw.ellipse((*corner, *(corner + extent)), fill=tuple(random.integers(0, 256, 3).tolist()))
    grain = random.normal(0, 4, (height, width, 1)).astype(np.float32)
    return Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))


def peer_loop(model: torch.nn.Module, processor: object, paths: list[Path]) -> torch.Tensor:
    vectors = []
    for path in paths:
        inputs = processor(images=Image.open(path), return_tensors="pt")
        with torch.no_grad():
            vectors.append(model.get_image_features(**inputs).pooler_output)
    return F.normalize(torch.cat(vectors), dim=-1)


def lowest_cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return round(F.cosine_similarity(one, other).min().item(), 6)


def indexing(embedder: Embedder, folder: Path, scratch: Path) -> tuple[Callable[[], None], float]:
    """What indexes a folder into a library of its own, and the seconds of what a library measures once for a model."""
    first, seed = scratch / "first", Path(tempfile.mkdtemp(dir=scratch))
    first.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(first / "0.png")

    def begin() -> None:
        with Library.open(seed, model=embedder) as library:
            library.index([first])

    once = timed(begin).wall_s

    def index() -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as place:
            shutil.copytree(seed, place, dirs_exist_ok=True)
            with Library.open(place, model=embedder) as library:
                assert library.index([folder]).embedded == len(list(folder.iterdir()))

    return index, once


def measure(name: str, checkpoint: Path, folder: Path, scratch: Path, rounds: int) -> tuple[list[Row], dict[str, Any]]:
    """One model on both sides."""
    model = transformers.AutoModel.from_pretrained(checkpoint).eval()
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    paths = sorted(folder.iterdir())
    embedders = {"float32": Embedder.from_pretrained(str(checkpoint), dtype="float32", reduced_decode=True)}
    default = Embedder.from_pretrained(str(checkpoint), reduced_decode=True)
    if default.dtype != torch.float32:
        embedders["our default"] = default
    turns: dict[str, Callable[[], object]] = {"peer": lambda: peer_loop(model, processor, paths)}
    facts: dict[str, Any] = {}
    for dtype, embedder in embedders.items():
        turns[f"{name}, {dtype}: Embedder, reduced"] = lambda embedder=embedder: embedder.embed_images(paths)
        turns[f"{name}, {dtype}: siglip index"], once = indexing(embedder, folder, scratch)
        facts[f"{name}, {dtype}: measured once for a library, s"] = round(once, 1)
    full = Embedder.from_pretrained(str(checkpoint), dtype="float32")
    turns[f"{name}, float32: Embedder, in full"] = lambda: full.embed_images(paths)
    timings = race(turns, rounds=rounds)
    rows = [
        compare(turn, timings, peer="peer", ours=turn, goal=5.0 if name == "nano" and "in full" not in turn else None)
        for turn in turns
        if turn != "peer"
    ]
    facts |= {f"{row.what}, pictures/s": round(len(paths) / row.ours_s, 2) for row in rows}
    facts[f"{name}, peer, pictures/s"] = round(len(paths) / rows[0].peer_s, 2)
    expected = peer_loop(model, processor, paths)
    for what, embedder in (embedders | {"in full": full}).items():
        found = torch.from_numpy(np.asarray(embedder.embed_images(paths)))
        facts[f"{name}, {what}: lowest cosine with the peer"] = lowest_cosine(found, expected)
    return rows, facts


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    transformers.logging.set_verbosity_error()
    number, size = (2, (640, 480)) if options.quick else (24, (4000, 3000))
    with tempfile.TemporaryDirectory() as name:
        scratch, folder = Path(name), Path(name) / "pictures"
        folder.mkdir()
        SiglipModel.from_pretrained("nano").save_pretrained(scratch / "nano")
        SiglipProcessor.from_pretrained("nano").save_pretrained(scratch / "nano")
        width, depth, image_size = (64, 1, 32) if options.quick else (768, 12, 224)
        save_checkpoint(scratch / "base/16-224", width=width, depth=depth, image_size=image_size)
        for index in range(number):
            photograph(size, index).save(folder / f"{index:02}.jpg", quality=90)
        megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        facts: dict[str, Any] = {"pictures": f"{number} of {size[0]} x {size[1]} pixels, {megabytes:.0f} MB"}
        rows: list[Row] = []
        for model, rounds in (("nano", 7), ("base/16-224", 3)):
            wanted = options.rounds or (1 if options.quick else rounds)
            more, told = measure(model, scratch / model, folder, scratch, wanted)
            rows += more
            facts |= told
    publish("A folder of large JPEGs", rows, facts, quick=options.quick)


if __name__ == "__main__":
    main()
