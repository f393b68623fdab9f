"""Photos from GitHub -> pairs: so many of each class of three sets, and those that photos.txt lists."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pair import Pair, shuffling_key, words

_LIST = Path(__file__).with_name("photos.txt")
_CALTECH_OF_EACH, _GROCERY_OF_EACH, _CLOTHING_OF_EACH = 60, 28, 170
# an image search, doubles of another class, and cartoon characters
_CALTECH_UNWANTED = ("BACKGROUND_Google", "Faces_easy", "Garfield", "garfield", "snoopy", "Snoopy")
# what the class names leave unsaid or misspell; the others are taken as they are
_CALTECH = {
    "airplanes": "airplane", "Motorbikes": "motorbike", "car_side": "car, side view", "crayfish": "crayfish, lobster",
    "Faces": "portrait of a person, face", "Leopards": "leopard", "bass": "bass, fish", "bonsai": "bonsai tree",
    "brontosaurus": "brontosaurus, dinosaur", "buddha": "buddha statue", "cellphone": "cell phone, mobile phone",
    "cougar_body": "cougar", "cougar_face": "face of a cougar", "crocodile_head": "head of a crocodile",
    "dalmatian": "dalmatian dog", "dollar_bill": "dollar bill, money", "emu": "emu, bird", "ewer": "ewer, jug",
    "flamingo": "flamingo, bird", "flamingo_head": "head of a flamingo", "gerenuk": "gerenuk, antelope",
    "gramophone": "gramophone, record player", "hawksbill": "hawksbill sea turtle", "ibis": "ibis, bird",
    "ketch": "ketch, sailing boat", "lotus": "lotus flower", "mayfly": "mayfly, insect",
    "menorah": "menorah, candle holder", "minaret": "minaret, tower of a mosque", "nautilus": "nautilus, sea shell",
    "okapi": "okapi, animal", "pagoda": "pagoda, temple tower", "panda": "giant panda", "pigeon": "pigeon, bird",
    "platypus": "platypus, animal", "rhino": "rhinoceros", "rooster": "rooster, bird",
    "schooner": "schooner, sailing ship", "stegosaurus": "stegosaurus, dinosaur", "tick": "tick, insect",
    "trilobite": "trilobite fossil", "watch": "wrist watch", "water_lilly": "water lily",
    "yin_yang": "yin yang symbol",
}  # fmt: skip
_CLOTHING = {
    "Blazer": "blazer", "Blouse": "blouse", "Body": "baby bodysuit", "Dress": "dress", "Hat": "hat", "Hoodie": "hoodie",
    "Longsleeve": "long-sleeved shirt", "Outwear": "jacket, outerwear", "Pants": "pants, trousers", "Shoes": "shoes",
    "Polo": "polo shirt", "Shirt": "shirt", "Shorts": "shorts", "Skirt": "skirt", "T-Shirt": "t-shirt",
    "Top": "women's top", "Undershirt": "undershirt, tank top",
}  # fmt: skip


class Photo(NamedTuple):
    """A line of photos.txt: five fields between tabs. `captions` has a | between them, `kind` is the class or empty."""

    file: str
    licence: str
    author: str
    kind: str
    captions: str


def listed(source: str) -> dict[tuple[str, str], list[Photo]]:
    """(repository, commit) -> the photos of one source in photos.txt, below a line `# source repository commit`."""
    found: dict[tuple[str, str], list[Photo]] = {}
    photos: list[Photo] = []
    for line in _LIST.read_text("utf-8").splitlines():
        if line.startswith("# "):
            name, repository, commit = line[2:].split()
            photos = found.setdefault((repository, commit), []) if name == source else []
        else:
            photos.append(Photo(*line.split("\t")))
    return found


def chosen(source: str, *repositories: Path) -> Iterator[Pair]:
    """The listed photos of one source; `repositories` in the order of `listed`."""
    for folder, ((repository, _), photos) in zip(repositories, listed(source).items(), strict=True):
        for photo in photos:
            yield Pair(
                id=f"{repository}/{photo.file}",
                drawing=folder / photo.file,
                captions=tuple(photo.captions.split("|")),
                licence=photo.licence,
                concept=f"{source}:{photo.kind}" if photo.kind else None,
                author=photo.author or None,
            )


def caltech101(repository: Path) -> Iterator[Pair]:
    root = repository / "101_ObjectCategories"
    for path in _some_of_each(root.glob("*/*.jpg"), _CALTECH_OF_EACH):
        label = path.parent.name
        if label not in _CALTECH_UNWANTED:
            caption = _CALTECH.get(label, words(label).lower())
            name = caption.split(",")[0]
            captions = (caption, name, f"a photo of {_a(name)}")
            yield _pair(path, repository, captions, f"caltech101:{label}")


def grocery(repository: Path) -> Iterator[Pair]:
    """The owners' own photos; the shop's pictures and descriptions in the repository are not theirs to license."""
    root = repository / "dataset"
    paths = (path for part in ("train", "val", "test") for path in (root / part).rglob("*.jpg"))
    for path in _some_of_each(paths, _GROCERY_OF_EACH):
        kind, *_, fine = path.relative_to(root).parts[1:-1]
        coarse = words(path.relative_to(root).parts[-3]).lower()
        name = words(fine) if kind == "Packages" else words(fine).lower()
        general = {"Fruit": "fruit", "Vegetables": "vegetable"}.get(kind, f"{coarse} carton")
        if coarse not in name.lower() and kind != "Packages" and coarse != kind.lower():
            name = f"{name} {coarse}"
        captions = (f"{name}, {general}", name, f"{name} in a grocery store", f"a photo of {name}")
        yield _pair(path, repository, captions, f"grocery:{fine}")


def clothing(repository: Path) -> Iterator[Pair]:
    with (repository / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file) if row["label"] in _CLOTHING}
    chosen = defaultdict(list)
    for image in sorted(rows, key=shuffling_key):
        chosen[rows[image]["label"]].append(repository / "images" / f"{image}.jpg")
    for label, paths in sorted(chosen.items()):
        for path in paths[:_CLOTHING_OF_EACH]:
            child = rows[path.stem]["kids"] == "True" and label != "Body"
            full = f"children's {_CLOTHING[label]}" if child else _CLOTHING[label]
            name = _CLOTHING[label].split(",")[0]
            captions = (f"{full}, clothing", name, full, f"a photo of {name if name.endswith('s') else _a(name)}")
            yield _pair(path, repository, captions, f"clothing:{label}")


def _a(name: str) -> str:
    return f"{'an' if re.match('[aio]|e[^uw]|um|un', name) else 'a'} {name}"


def _some_of_each(paths: Iterable[Path], most: int) -> list[Path]:
    """At most so many of each class (the last two folders' names), the same ones on every machine."""
    classes = defaultdict(list)
    for path in sorted(paths, key=lambda path: shuffling_key("/".join(path.parts[-3:]))):
        classes[path.parts[-3:-1]].append(path)
    return [path for label in sorted(classes) for path in classes[label][:most]]


def _pair(path: Path, repository: Path, captions: tuple[str, ...], concept: str) -> Pair:
    id, concept = path.relative_to(repository).as_posix(), re.sub(r"\s+", "_", concept)
    return Pair(id=id, drawing=path, captions=captions, concept=concept)
