"""Does a small model learn to write what it sees? The shapes world from scratch, and the same model without pictures.

`recipes/shapes.py` makes the world, the trainer trains by `recipes/shapes_vqa.py`, and pictures with combinations that
never occurred are captioned and asked about. A text counts if it is exactly right. "blind" is the same recipe with a
white picture for every one; "words" answers each prompt with its most frequent text in training.
"""

import json
import runpy
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.harness import arguments, publish, timed
from siglip.captioner import Captioner, Text
from siglip.files import write_text
from siglip.training import load_recipe, train

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
Row = dict[str, str]


def rows_of(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def trained(recipe: Path, world: Path, run: Path, steps: int | None) -> tuple[Path, float]:
    """The export of a run over a world, and the processor seconds it took."""
    config = load_recipe(recipe)
    data = replace(config.data, train=str(world / "train/train.jsonl"), held_out=str(world / "held_out/held_out.jsonl"))
    config = replace(config, data=data)
    if steps is not None:
        warmup = min(config.optimizer.warmup_steps, steps - 1)
        config = replace(config, steps=steps, optimizer=replace(config.optimizer, warmup_steps=warmup))
    exports: list[Path] = []
    seconds = timed(lambda: exports.append(train(config, run))).cpu_s
    return exports[0], seconds


def written(model: Path, rows: list[Row], folder: Path) -> list[str]:
    """What the model writes for each row."""
    captioner = Captioner.from_pretrained(model, batch_size=64)
    pictures, prompts = [folder / row["image"] for row in rows], (row["prefix"] for row in rows)
    return [item.text for item in captioner.write(pictures, prompts, max_new_tokens=16) if isinstance(item, Text)]


def shares(rows: list[Row], texts: list[str]) -> dict[str, float]:
    """How often a caption and an answer are exactly right; of answers also by the first two words of the question."""
    right: dict[str, list[bool]] = defaultdict(list)
    for row, text in zip(rows, texts, strict=True):
        question = row["prefix"].removeprefix("answer en ")
        kinds = ("answers", " ".join(question.split()[:2])) if question != row["prefix"] else ("captions",)
        for kind in kinds:
            right[kind].append(text == row["suffix"])
    return {kind: round(sum(found) / len(found), 3) for kind, found in right.items()}


def most_frequent(train_rows: list[Row], rows: list[Row]) -> list[str]:
    """The most frequent text of each row's prompt in training."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in train_rows:
        seen[row["prefix"]][row["suffix"]] += 1
    return [max(seen[row["prefix"]], key=seen[row["prefix"]].__getitem__, default="") for row in rows]


def without_pictures(world: Path, blind: Path) -> None:
    """The same rows, with one white picture under all names."""
    for part in ("train", "held_out"):
        rows = rows_of(world / part / f"{part}.jsonl")
        (blind / part).mkdir(parents=True)
        size = Image.open(world / part / rows[0]["image"]).size
        Image.new("RGB", size, "white").save(blind / part / "white.png")
        named = [{**row, "image": f"as-{Path(row['image']).name}"} for row in rows]
        for name in {row["image"] for row in named}:
            (blind / part / name).symlink_to("white.png")
        write_text(blind / part / f"{part}.jsonl", "".join(f"{json.dumps(row)}\n" for row in named))


def maker(name: str) -> Callable[..., None]:
    """What a file of `recipes/` does to make a world."""
    return runpy.run_path(str(RECIPES / f"{name}.py"))["main"]


def compare_with_blind(question: str, make: Callable[..., None], recipe: str, *, quick: bool) -> None:
    """Make a world, learn it by a file of `recipes/`, with pictures and without; print the shares.

    `make` takes the folder, and may take how many pictures or rows to train and to ask about.
    """
    with tempfile.TemporaryDirectory() as name:
        world, blind, runs = (Path(name) / part for part in ("world", "blind", "runs"))
        counts = (40, 10) if quick else ()
        make(world, *counts)
        without_pictures(world, blind)
        rows = rows_of(world / "held_out" / "held_out.jsonl")
        facts: dict[str, Any] = {}
        for kind, source in (("with pictures", world), ("blind", blind)):
            model, seconds = trained(RECIPES / f"{recipe}.py", source, runs / kind, 2 if quick else None)
            texts = written(model, rows_of(source / "held_out" / "held_out.jsonl"), source / "held_out")
            facts[f"{kind}, exactly right"] = shares(rows, texts)
            facts[f"{kind}, processor seconds of the training"] = round(seconds)
        train_rows = rows_of(world / "train" / "train.jsonl")
        facts["words, exactly right"] = shares(rows, most_frequent(train_rows, rows))
    publish(question, [], facts, quick=quick)


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    question = "The shapes world from scratch, combinations not seen in training"
    compare_with_blind(question, maker("shapes"), "shapes_vqa", quick=options.quick)


if __name__ == "__main__":
    main()
