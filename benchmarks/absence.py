"""How often is something found in a collection that does not hold it, and how often something that is there?

`python -m benchmarks.absence COLLECTION...`, each a folder with one folder of pictures for each label, or a table (.csv
or .tsv) with the columns path (or file_name), label, and optionally group. By a seed half of the labels (of the groups)
are taken out with their pictures, and all are then asked for: "false" is the share of absent ones with a find, "kept"
that of present ones, "right" how many of these had a picture of that label in front; "worst" is the highest false share
of a split. --rounds is the number of splits, 10 unless given. A label that shares a word with a present one is not
asked for as absent, unless all do. Each is done with all pictures that are left, and with 30 of them.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import parser_of, publish
from siglip import Embedder
from siglip.search.null import SURE, Null, fit_null, names_of_things
from siglip.search.walk import Walk

SAMPLES = Path(__file__).resolve().parent.parent / "samples" / "metadata.csv"
FEW = 30
MOST_ASKED = 300


@dataclass(frozen=True, slots=True)
class Collection:
    """Unit vectors of pictures; what each shows, and the group that is taken out with it."""

    vectors: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def load(place: Path, embedder: Embedder) -> Collection:
    """The collection in a folder or table, embedded."""
    if place.is_dir():
        found = [Path(os.fsdecode(folder + name)) for folder, files in Walk(place.absolute()) for name, _, _ in files]
        files = [file for file in found if file.parent != place.absolute()]
        labels = groups = [file.relative_to(place.absolute()).parts[0].replace("_", " ") for file in files]
    else:
        with place.open(encoding="utf-8", newline="") as file:
            tabs = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if place.suffix == ".tsv" else {}
            rows: list[dict[str, str]] = list(csv.DictReader(file, **tabs))
        files = [place.parent / (row.get("path") or row["file_name"]) for row in rows]
        labels = [row["label"] for row in rows]
        groups = [row.get("group") or row["label"] for row in rows]
    embedded = embedder.embed_images(files)
    kept = embedded.indices
    return Collection(embedded.vectors, np.array(labels)[kept], np.array(groups)[kept])


def split(collection: Collection, random: np.random.Generator, most: int | None) -> tuple[Any, list[str], list[str]]:
    """Rows that stay, the labels in them, and absent labels; half of the groups are taken out."""
    groups = random.permutation(np.unique(collection.groups))
    absent = np.isin(collection.groups, groups[: max(1, len(groups) // 2)])
    rows = np.flatnonzero(~absent)
    if most is not None and most < len(rows):
        rows = random.choice(rows, most, replace=False)
    present = sorted(set(collection.labels[rows]))
    gone = sorted(set(collection.labels[absent]) - set(present))
    words = {word for label in present for word in words_of(label)}
    gone = [label for label in gone if not words_of(label) & words] or gone
    return rows, some(present, random), some(gone, random)


def words_of(label: str) -> set[str]:
    return set(label.lower().replace("-", " ").split())


def some(labels: list[str], random: np.random.Generator) -> list[str]:
    return [labels[index] for index in random.permutation(len(labels))[:MOST_ASKED]]


def found(null: Null, texts: np.ndarray, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each text whether its nearest picture is a find, and which picture that is."""
    cosines = texts @ pictures.T
    best = cosines.max(axis=1)
    sure = [null.confidence(float(cosine), text) >= SURE for cosine, text in zip(best, texts, strict=True)]
    return np.array(sure, bool), cosines.argmax(axis=1)


def measure(collection: Collection, texts: dict[str, np.ndarray], splits: int, most: int | None) -> dict[str, Any]:
    names = np.stack([texts[name] for name in names_of_things()])
    shares: list[tuple[float, float, float]] = []
    pictures = asked = 0
    for seed in range(splits):
        rows, present, absent = split(collection, np.random.default_rng(seed), most)
        vectors, labels = collection.vectors[rows], collection.labels[rows]
        null = fit_null(names, [vectors])
        if null is None or not present or not absent:
            continue
        false, _ = found(null, np.stack([texts[label] for label in absent]), vectors)
        kept, nearest = found(null, np.stack([texts[label] for label in present]), vectors)
        right = labels[nearest] == np.array(present)
        shares.append((false.mean(), kept.mean(), right[kept].mean() if kept.any() else np.nan))
        pictures, asked = len(rows), len(present) + len(absent)
    table = np.array(shares)
    told = {"pictures": pictures, "labels": asked, "false": table[:, 0].mean(), "worst": table[:, 0].max()}
    told |= {"kept": table[:, 1].mean(), "right": None if np.isnan(table[:, 2]).all() else np.nanmean(table[:, 2])}
    return {name: round(float(value), 3) if isinstance(value, float) else value for name, value in told.items()}


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("collections", nargs="*", type=Path, default=[SAMPLES], help="folders or tables")
    parser.add_argument("--model", default="nano")
    options = parser.parse_args(argv)
    embedder = Embedder.from_pretrained(options.model, dtype="float32")
    facts: dict[str, Any] = {}
    for place in options.collections:
        collection = load(place, embedder)
        asked = [*names_of_things(), *np.unique(collection.labels).tolist()]
        texts = dict(zip(asked, embedder.embed_texts(asked).vectors, strict=True))
        splits = options.rounds or (2 if options.quick else 10)
        facts[place.stem] = measure(collection, texts, splits, None)
        if facts[place.stem]["pictures"] > FEW:
            facts[f"{place.stem}, few"] = measure(collection, texts, splits, FEW)
    publish("What is found that is not there, and what is that is", [], facts, quick=options.quick)


if __name__ == "__main__":
    main()
