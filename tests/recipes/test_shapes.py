"""The shapes world: what is said of a picture is what was drawn, and combinations kept out of training stay out."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import shapes
from shapes import Thing


def test_captions_say_what_is_there() -> None:
    circle, square = Thing("red", "circle", "small", 8, 8), Thing("blue", "square", "large", 40, 24)
    assert shapes.caption([circle]) == "a small red circle"
    assert shapes.caption([square, circle]) == "a red circle left of a blue square"
    assert shapes.caption([circle, square._replace(x=8)]) == "a red circle above a blue square"
    crosses = [Thing("purple", "cross", "large", 8 + 16 * place, 8) for place in range(3)]
    assert shapes.caption(crosses) == "three large purple crosses"


@pytest.mark.parametrize("seed", range(20))
def test_questions_have_the_answer_that_the_picture_gives(seed: int) -> None:
    circle, square = Thing("red", "circle", "small", 8, 8), Thing("blue", "square", "large", 40, 24)
    sure = {
        "what color is the circle?": "red", "what color is the square?": "blue",
        "what shape is the red thing?": "circle", "what shape is the blue thing?": "square",
        "is the circle small or large?": "small", "is the square small or large?": "large",
        "what is left of the square?": "a red circle", "what is right of the circle?": "a blue square",
    }  # fmt: skip
    for question, answer in shapes.questions([circle, square], Random(seed)):
        if question.startswith("is there a"):
            name = question.removeprefix("is there a ").removesuffix("?")
            assert answer == ("yes" if name in ("red circle", "blue square") else "no")
        else:
            assert answer == sure[question]
    assert ("how many things are there?", "two") in shapes.questions([circle, circle._replace(x=24)], Random(seed))


def test_things_are_drawn_in_their_colour_each_in_a_cell_of_its_own() -> None:
    random = Random(0)
    for _ in range(50):
        things = shapes.scene(random, unseen=False)
        pixels = np.asarray(shapes.draw(things, random)).astype(int)
        assert pixels.shape == (64, 64, 3)
        assert len({(thing.x // 16, thing.y // 16) for thing in things}) == len(things)
        for thing in things:
            assert np.abs(pixels[thing.y, thing.x] - shapes.COLOURS[thing.colour]).max() <= 18


def test_unseen_combinations_are_a_fifth_and_never_trained_on() -> None:
    def combinations(*, unseen: bool) -> set[object]:
        random = Random(1)
        scenes = [shapes.scene(random, unseen=unseen) for _ in range(1500)]
        pairs = {frozenset(thing.name for thing in things) for things in scenes if len({t.name for t in things}) == 2}
        return pairs | {(len(things), things[0].size, things[0].name) for things in scenes if len(things) != 2}

    seen, unseen = combinations(unseen=False), combinations(unseen=True)
    assert not seen & unseen
    assert 0.15 < len(unseen) / len(seen | unseen) < 0.25


def test_equal_runs_write_equal_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        shapes.main(tmp_path / name, 6, 3)
    for file in ("train/train.jsonl", "train/00005.png", "held_out/held_out.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "one" / "train" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 18 and rows[0].keys() == {"image", "prefix", "suffix"}
