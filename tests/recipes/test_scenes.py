"""Scenes of clip art: what is said of a picture is what was drawn, and things kept out of training stay out."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import scenes_vqa
from PIL import Image
from scenes_vqa import SEEN, UNSEEN, Drawings, Thing

from tests.conftest import ROOT

SAMPLES = str(ROOT / "samples")


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    """Each thing as a square of one grey level of its own, so that a picture says what was drawn where."""
    names = (*SEEN, *UNSEEN)
    return {name: [Image.new("RGB", (22, 22), (5 * index + 20,) * 3)] for index, name in enumerate(names)}


@pytest.mark.parametrize("seed", range(20))
def test_questions_have_the_answer_that_the_picture_gives(drawings: Drawings, seed: int) -> None:
    things = [
        Thing("tiger", "red", 0, 0),
        Thing("airplane", "blue", 0, 1),
        Thing("pizza", "black", 1, 0),
        Thing("bell", "green", 1, 1),
    ]
    sure = {
        "how many things are there?": "four",
        "what color is the frame of the tiger?": "red",
        "what color is the frame of the airplane?": "blue",
        "what color is the frame of the bell?": "green",
        "what is left of the airplane?": "tiger",
        "what is right of the tiger?": "airplane",
    }
    asked = scenes_vqa.questions(things, drawings, Random(seed))
    # the pizza is of those that no question and no answer names
    assert len(asked) == 4 and not any("pizza" in text for pair in asked for text in pair)
    for question, answer in asked:
        if question.startswith("is there a"):
            name = question.split(maxsplit=3)[3].removesuffix("?")
            assert answer == ("yes" if name in ("tiger", "airplane", "bell") else "no")
            assert question.split()[2] == ("an" if name in ("airplane", "elephant", "umbrella") else "a")
        else:
            assert answer == sure[question]


def test_things_of_the_second_row_have_no_neighbour_in_the_first(drawings: Drawings) -> None:
    things = [Thing("tiger", "red", 0, 1), Thing("bell", "green", 1, 0)]
    kinds = {question.split()[1] for question, _ in scenes_vqa.questions(things, drawings, Random(0))}
    assert kinds == {"many", "there", "color"}


def test_each_thing_is_drawn_in_its_quarter_and_framed_in_its_colour(drawings: Drawings) -> None:
    random = Random(0)
    for _ in range(50):
        things = scenes_vqa.scene(drawings, random, unseen=False)
        pixels = np.asarray(scenes_vqa.draw(things, drawings, random)).astype(int)
        assert pixels.shape == (64, 64, 3)
        assert len({(thing.row, thing.column) for thing in things}) == len(things) == len({t.frame for t in things})
        for thing in things:
            quarter = pixels[32 * thing.row :, 32 * thing.column :][:32, :32]
            assert (quarter[16, 16] == drawings[thing.name][0].getpixel((0, 0))).all()
            assert np.abs(quarter[16, 3] - scenes_vqa.FRAMES[thing.frame]).max() <= 18
        for row, column in {(0, 0), (0, 1), (1, 0), (1, 1)} - {(thing.row, thing.column) for thing in things}:
            assert pixels[32 * row :, 32 * column :][:32, :32].min() >= 215


def test_every_held_out_picture_shows_what_no_training_picture_does(drawings: Drawings) -> None:
    def shown(*, unseen: bool) -> list[set[str]]:
        random = Random(1)
        return [{thing.name for thing in scenes_vqa.scene(drawings, random, unseen=unseen)} for _ in range(300)]

    assert all(names <= set(SEEN) for names in shown(unseen=False))
    assert all(names & set(UNSEEN) for names in shown(unseen=True))
    # some of them show known things as well, which is what most questions are about
    assert sum(bool(names & set(SEEN)) for names in shown(unseen=True)) > 100


def test_the_samples_make_a_world_and_equal_runs_write_equal_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        scenes_vqa.main(SAMPLES, tmp_path / name, 6, 3)
    for file in ("train/train.jsonl", "train/00005.png", "held_out/held_out.jsonl", "held_out/00002.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "one" / "train" / "train.jsonl").read_text().splitlines()]
    assert sum(row["prefix"] == "caption en" for row in rows) == 6 and rows[0].keys() == {"image", "prefix", "suffix"}


def test_a_source_without_the_things_says_which_are_expected(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("tiger, animal")
    with pytest.raises(SystemExit, match="shows tiger; expected, as classes or captions of drawings, five or more of"):
        scenes_vqa.main(str(tmp_path), tmp_path / "out", 2, 2)
