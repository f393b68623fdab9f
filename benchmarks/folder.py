"""How fast does a folder of 12-megapixel JPEGs become vectors, against the loop one writes with transformers?

Files on disk in, unit vectors out, built-in model "nano" on both sides. The peer's side is the loop of its users: open,
prepare and embed one picture after the other. Ours is Embedder, with and without decoding at reduced scale.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image, ImageDraw

from benchmarks.harness import arguments, compare, publish, race
from siglip import Embedder, SiglipModel, SiglipProcessor


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


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    transformers.logging.set_verbosity_error()
    number, size = (2, (640, 480)) if options.quick else (24, (4000, 3000))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        SiglipModel.from_pretrained("nano").save_pretrained(folder / "nano")
        SiglipProcessor.from_pretrained("nano").save_pretrained(folder / "nano")
        model = transformers.AutoModel.from_pretrained(folder / "nano").eval()
        processor = transformers.AutoProcessor.from_pretrained(folder / "nano")
        paths = [folder / f"{index:02}.jpg" for index in range(number)]
        for index, path in enumerate(paths):
            photograph(size, index).save(path, quality=90)
        embed = {
            f"ours{', reduced' if reduced else ''}": Embedder.from_pretrained("nano", reduced_decode=reduced)
            for reduced in (True, False)
        }
        turns = {name: lambda embedder=embedder: embedder.embed_images(paths) for name, embedder in embed.items()}
        timings = race(
            {"peer": lambda: peer_loop(model, processor, paths), **turns},
            rounds=options.rounds or (1 if options.quick else 7),
        )
        expected = peer_loop(model, processor, paths)
        found = {name: torch.from_numpy(np.asarray(embedder.embed_images(paths))) for name, embedder in embed.items()}
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
    rows = [
        compare("reduced_decode=True", timings, peer="peer", ours="ours, reduced", goal=5.0),
        compare("reduced_decode=False", timings, peer="peer", ours="ours"),
    ]
    facts = {
        "pictures": f"{number} of {size[0]} x {size[1]} pixels, {megabytes:.0f} MB",
        **{f"{row.what}, pictures/s": round(number / row.ours_s, 2) for row in rows},
        "peer, pictures/s": round(number / rows[0].peer_s, 2),
        **{f"lowest cosine of {name} and peer": lowest_cosine(vectors, expected) for name, vectors in found.items()},
    }
    publish("A folder of large JPEGs", rows, facts, quick=options.quick)


if __name__ == "__main__":
    main()
