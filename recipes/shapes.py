"""A folder -> the shapes world in it: pictures of coloured shapes, with captions and questions of sure answers.

    python recipes/shapes.py shapes

A picture shows one to four equal things ("three small red circles"), or two different ones ("a red circle above a blue
square"). Questions ask for colour, shape, size, count, what is left, right, above or below, and whether something is
there. A fifth of all combinations, that is of count, size, colour and shape, or of two things whatever their places,
never occurs in `train/train.jsonl`, and every picture of `held_out/held_out.jsonl` shows one of them. Rows are
{"image", "prefix", "suffix"}.
"""

import json
import sys
from pathlib import Path
from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw

from siglip.files import write_text

# a picture is 4 x 4 cells, and each thing lies in one: as large as a patch of the model that learns from it
CELLS, CELL_PX = 4, 16
COLOURS = {
    "red": (215, 35, 35),
    "green": (25, 150, 50),
    "blue": (40, 70, 215),
    "brown": (150, 85, 30),
    "black": (20, 20, 20),
    "purple": (130, 40, 150),
}
SHAPES = ("circle", "square", "triangle", "cross")
KINDS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
COUNTS = ("one", "two", "three", "four")
# half the side of a thing, in pixels
RADII = {"small": 5, "large": 7}
# how far from the middle of its cell a thing may lie, in pixels
SHIFT_PX = 1
PICTURES, HELD_OUT = 30_000, 500


class Thing(NamedTuple):
    """A shape with its colour, its size, and the middle of it in pixels."""

    colour: str
    shape: str
    size: str
    x: int
    y: int

    @property
    def name(self) -> str:
        """As captions and answers name it, without its size."""
        return f"{self.colour} {self.shape}"


def main(folder: Path, pictures: int = PICTURES, held_out: int = HELD_OUT) -> None:
    """Write train.jsonl and held_out.jsonl, each in a folder of its own with its pictures; equal runs, equal files."""
    for part, count, unseen in (
        ("train", pictures, False),
        ("held_out", held_out, True),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        random = Random(f"shapes {part}")
        rows: list[dict[str, str]] = []
        for number in range(count):
            things = scene(random, unseen=unseen)
            name = f"{number:05d}.png"
            draw(things, random).save(folder / part / name)
            asked = [("caption en", caption(things))]
            asked += [(f"answer en {ask}", answer) for ask, answer in questions(things, random)]
            rows += [{"image": name, "prefix": prefix, "suffix": suffix} for prefix, suffix in asked]
        write_text(
            folder / part / f"{part}.jsonl",
            "".join(f"{json.dumps(row)}\n" for row in rows),
        )
        print(f"{folder / part / part}.jsonl: {len(rows)} rows of {count} pictures", file=sys.stderr)


def scene(random: Random, *, unseen: bool) -> list[Thing]:
    """One to four equal things, or two that differ in colour and shape, of the combinations seen or `unseen`."""
    while True:
        first, second = (random.choice(KINDS) for _ in range(2))
        if random.random() < 0.5:
            count, size = random.randint(1, 4), random.choice(list(RADII))
            kinds, sizes, combination = (
                [first] * count,
                [size] * count,
                (count, size, *first),
            )
        else:
            kinds, sizes = (
                [first, second],
                [random.choice(list(RADII)) for _ in range(2)],
            )
            combination = tuple(sorted(kinds))
            if first[0] == second[0] or first[1] == second[1]:
                continue
        if _is_unseen(combination) == unseen:
            places = _places(random, sizes)
            return [Thing(*kind, size, *place) for kind, size, place in zip(kinds, sizes, places, strict=True)]


def caption(things: list[Thing]) -> str:
    """The one sentence that is right; of two things the left or upper one comes first."""
    first = things[0]
    if len({thing.name for thing in things}) > 1:
        before, word = _relation(things)
        after = next(thing for thing in things if thing is not before)
        return f"a {before.name} {word} a {after.name}"
    if len(things) == 1:
        return f"a {first.size} {first.name}"
    return f"{COUNTS[len(things) - 1]} {first.size} {first.name}{'es' if first.shape == 'cross' else 's'}"


def questions(things: list[Thing], random: Random) -> list[tuple[str, str]]:
    """Two questions with their answers: what something is like or whether it is there; how many, or what is where."""
    first = random.choice(things)
    asked = [
        (f"what color is the {first.shape}?", first.colour),
        (f"what shape is the {first.colour} thing?", first.shape),
        (f"is the {first.shape} small or large?", first.size),
        _presence(things, random),
    ]
    if len({thing.name for thing in things}) == 1:
        return [
            random.choice(asked),
            ("how many things are there?", COUNTS[len(things) - 1]),
        ]
    before, word = _relation(things)
    after = next(thing for thing in things if thing is not before)
    other = {"left of": "right of", "above": "below"}[word]
    places = [
        (f"what is {word} the {after.shape}?", f"a {before.name}"),
        (f"what is {other} the {before.shape}?", f"a {after.name}"),
    ]
    return [random.choice(asked), random.choice(places)]


def draw(things: list[Thing], random: Random) -> Image.Image:
    """Things on a light ground, smooth at the edges."""
    times = 4
    ground = tuple(random.randint(215, 255) for _ in range(3))
    picture = Image.new("RGB", (CELLS * CELL_PX * times, CELLS * CELL_PX * times), ground)
    pen = ImageDraw.Draw(picture)
    for thing in things:
        colour = tuple(min(255, max(0, level + random.randint(-18, 18))) for level in COLOURS[thing.colour])
        x, y, r = thing.x * times, thing.y * times, RADII[thing.size] * times
        if thing.shape == "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        elif thing.shape == "square":
            pen.rectangle((x - r, y - r, x + r, y + r), fill=colour)
        elif thing.shape == "triangle":
            pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
        else:
            arm = r // 3
            pen.rectangle((x - r, y - arm, x + r, y + arm), fill=colour)
            pen.rectangle((x - arm, y - r, x + arm, y + r), fill=colour)
    return picture.resize((CELLS * CELL_PX, CELLS * CELL_PX), Image.Resampling.BOX)


def _places(random: Random, sizes: list[str]) -> list[tuple[int, int]]:
    """Middles of things in cells of their own; two are never as far apart in one direction as in the other."""
    while True:
        cells = [divmod(cell, CELLS) for cell in random.sample(range(CELLS * CELLS), len(sizes))]
        (row, column), (other_row, other_column) = cells[0], cells[-1]
        if len(cells) != 2 or abs(row - other_row) != abs(column - other_column):
            break
    places: list[tuple[int, int]] = []
    for size, (row, column) in zip(sizes, cells, strict=True):
        room = min(SHIFT_PX, CELL_PX // 2 - RADII[size] - 1)
        x, y = (CELL_PX * place + CELL_PX // 2 + random.randint(-room, room) for place in (column, row))
        places.append((x, y))
    return places


def _presence(things: list[Thing], random: Random) -> tuple[str, str]:
    there = random.random() < 0.5
    names = [" ".join(kind) for kind in KINDS]
    wrong = [name for name in names if name not in {thing.name for thing in things}]
    return (
        f"is there a {random.choice(things).name if there else random.choice(wrong)}?",
        "yes" if there else "no",
    )


def _is_unseen(combination: object) -> bool:
    """Whether it is among the fifth that is kept out of training; the same on every machine."""
    return Random(f"{combination}").random() < 0.2


def _relation(things: list[Thing]) -> tuple[Thing, str]:
    """The left or upper of two things, and how it lies: by the axis on which they are further apart."""
    first, second = things
    if abs(first.x - second.x) >= abs(first.y - second.y):
        return (first if first.x < second.x else second), "left of"
    return (first if first.y < second.y else second), "above"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "shapes"))
