"""Mulberry symbols, Bioicons, tiles of Dungeon Crawl and people's sketches -> pairs: captions from the file names."""

import csv
import gzip
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from drawing import LONGEST_PX, drawn, drawn_box
from pair import Pair, with_tags, words
from PIL import Image

_BIOICONS_LICENCES = {
    "cc-0": "CC0-1.0", "cc-by-3.0": "CC-BY-3.0", "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-3.0": "CC-BY-SA-3.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0", "mit": "MIT", "bsd": "BSD",
}  # fmt: skip
# first words of Mulberry's categories that can be seen, unlike `verb` or `descriptive`
_SUBJECT = re.compile(
    r"(food|animal|clothes|building|transport|sport|plants|drink|people|tools|music|weather|leisure|number|shape|"
    r"alphabet|toys)\b"
)
# folders of tiles -> what they show; all others hold walls, effects and parts of pictures
_TILES = {
    "mon": "monster", "item/weapon": "weapon", "item/armour": "armour", "item/food": "food", "item/book": "book",
    "item/misc": "item", "item/potion": "potion", "item/staff": "staff", "item/ring": "ring", "item/wand": "wand",
    "item/scroll": "scroll", "item/amulet": "amulet", "dngn/statues": "statue", "dngn/altars": "altar",
    "dngn/trees": "tree", "dngn/doors": "door", "dngn/traps": "trap", "dngn/gateways": "gateway",
}  # fmt: skip
# pieces of larger pictures, marks laid over others, and proper names of the game
_NO_TILE = re.compile(
    r"/i-|overlay|_gone|_used|middle|/zig|/lab_|vgate|tentacle|panlord|urand|/unique/|_[NSEW]{1,2}\.png|spectrals|draco-|"
    r"misc/brand|id_|runes"
)
# of 32 px: smaller drawings in the tile are blades of grass and the like
_LEAST_OF_TILE = 0.3

# of each thing that people were asked to draw, so many sketches
_SKETCHES = 30


def mulberry(repository: Path) -> Iterator[Pair]:
    """Pictograms for people who speak with pictures; those rated for adults are left out."""
    with (repository / "scripts/data/symbol-info.csv").open(encoding="utf-8", newline="") as file:
        known = {row["symbol-en"]: row for row in csv.DictReader(file)}
    for path in sorted((repository / "EN").glob("*.svg")):
        row = known.get(path.stem, {})
        if row.get("rated") in (None, "", "0"):
            name = mulberry_name(path.stem)
            subject = _SUBJECT.match((row.get("category-en") or "").lower())
            tags = [tag for tag in (row.get("tags") or "").split() if len(tag) > 2]
            seen = [subject[0]] if subject else []
            captions = (with_tags(name, [*tags[:1], *seen, *tags[1:]], 2), name, f"{name} symbol")
            yield Pair(id=path.stem, drawing=path, captions=captions)


def mulberry_name(stem: str) -> str:
    """`run_2_,_to` -> `to run`, `country_The_Gambia` -> `map of the Gambia`, `flag_Chad` -> `flag of Chad`."""
    name = words(stem)
    verb = re.match(r"(.*?)\s*, to$", name)
    name = verb[1] if verb else name
    name = name if re.fullmatch(r"\d+\w*", name) else re.sub(r"\s+\d+[a-z]?\b", "", name)
    name = re.sub("^country (The )?", lambda found: "map of the " if found[1] else "map of ", name)
    name = re.sub("^flag (?=[A-Z])", "flag of ", name).strip(" ,")
    return f"to {name}" if verb else name


def bioicons(repository: Path) -> Iterator[Pair]:
    """Drawings for the life sciences in static/icons/LICENCE/CATEGORY/AUTHOR/NAME.svg."""
    root = repository / "static/icons"
    for path in sorted(root.glob("*/*/*/*.svg")):
        licence, category, author, _ = path.relative_to(root).parts
        name = bioicon_name(path.stem)
        if licence in _BIOICONS_LICENCES and name:
            subject = words(category).lower().removesuffix("s") if category == "Animals" else words(category).lower()
            yield Pair(
                id=path.relative_to(root).as_posix(),
                drawing=path,
                captions=(with_tags(name, [subject], 1), name, f"{name}, scientific illustration"),
                licence=_BIOICONS_LICENCES[licence],
                author=author.replace("_", " "),
            )


def bioicon_name(stem: str) -> str:
    """`FruitFly-2` -> `fruit Fly`, `DNA_icon` -> `DNA`."""
    name = re.sub("([a-z])([A-Z])", r"\1 \2", re.sub(r"\s*\b\d+\s*$", "", words(stem)))
    name = re.sub(r"\b(chem|svg|icon|[Nn]ew)\b$", "", re.sub(r"\s+\d+$", "", name)).strip()
    return name if re.match("[A-Z]{2}", name) else name[:1].lower() + name[1:]


def crawl_tiles(repository: Path) -> Iterator[Pair]:
    """Pixel art of 32 px, twice enlarged without smoothing."""
    root = repository / "releases/Nov-2015"
    for path in sorted(root.rglob("*.png")):
        file = path.relative_to(root).as_posix()
        kind = next((kind for folder, kind in _TILES.items() if file.startswith(f"{folder}/")), None)
        name = re.sub(r"\b(new|old|left|right)$", "", re.sub(r"\d+\b", "", words(path.stem)).strip()).strip()
        if kind is None or len(name) < 3 or _NO_TILE.search(file):
            continue
        if kind in ("amulet", "ring", "potion", "wand", "scroll", "book", "staff") and kind not in name:
            name = f"{name} {kind}"
        folders = [words(folder).removesuffix("s") for folder in file.split("/")[1:-1]] if kind == "monster" else []
        tile = _tile(path)
        if tile is not None:
            captions = (with_tags(name, [*folders, kind], 2), name, f"pixel art {name}", f"{name}, {kind}, pixel art")
            yield Pair(id=file, drawing=tile, captions=captions)


def _tile(path: Path) -> Image.Image | None:
    tile = drawn(path)
    box = drawn_box(tile, margin=0) if tile else None
    if tile is None or box is None or (box[2] - box[0]) * (box[3] - box[1]) < _LEAST_OF_TILE * tile.width * tile.height:
        return None
    times = max(1, LONGEST_PX // max(tile.size))
    return tile.resize((tile.width * times, tile.height * times), Image.Resampling.NEAREST)


def sketches(package: Path) -> Iterator[Pair]:
    """Lines that players of Quick, Draw! drew in 20 seconds: a file for each thing, and a row for each sketch.

    A row holds how black each of 28 x 28 places is, from 0 to 1.
    """
    for path in sorted((package / "src/drawings").glob("*.ndjson.gz")):
        name = path.name.removesuffix(".ndjson.gz")
        captions = (name, f"a sketch of {name}", f"{name} doodle")
        with gzip.open(path, "rt", encoding="utf-8") as rows:
            for number, row in enumerate(islice(rows, _SKETCHES)):
                black = np.array(json.loads(row), np.float32).reshape(28, 28)
                picture = Image.fromarray((255 * (1 - black)).round().astype(np.uint8))
                large = picture.resize((LONGEST_PX, LONGEST_PX), Image.Resampling.BICUBIC)
                yield Pair(id=f"{name}/{number}", drawing=large, captions=captions, concept=f"sketch:{name}")
