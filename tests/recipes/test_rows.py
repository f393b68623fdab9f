"""Shards become captions and questions: names without their keywords, sentences whole, each picture once."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from random import Random

import pytest
import rows
from PIL import Image
from sources import WORDS
from wordnet import WordNet

from tests.training.conftest import square


def shard(path: Path) -> Path:
    samples = [
        ("emoji-noto", "1", "green apple, fruit"),
        ("emoji-noto", "1", "green apple, fruit"),
        ("bioicons", "2", "t lymphocyte, blood"),
        ("openstax", "3", "a bowl with tomatoes, cucumbers and lettuce"),
        ("clothing", "4", "skirt, clothing"),
        ("icons-mdi", "5", "arrow to the left, navigation"),
    ]
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for number, (source, ident, text) in enumerate(samples):
            facts = json.dumps({"source": source, "id": ident, "captions": [text]}).encode()
            for suffix, content in ((".png", square("red", number)), (".txt", text.encode()), (".json", facts)):
                header = tarfile.TarInfo(f"{number}{suffix}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    return path.parent


def test_rows_are_names_sentences_and_questions_with_sure_answers(tmp_path: Path, words: Path) -> None:
    data = shard(tmp_path / "data" / "train" / "train-000000.tar").parent
    shutil.copytree(words, data / "packages" / "npm" / WORDS.name)
    rows.main(data, tmp_path / "rows")
    found = [json.loads(line) for line in (tmp_path / "rows" / "rows.jsonl").read_text().splitlines()]
    captions = [row["suffix"] for row in found if row["prefix"] == "caption en"]
    assert captions == ["green apple", "a bowl with tomatoes, cucumbers and lettuce", "skirt", "arrow to the left"]
    assert all((tmp_path / "rows" / row["image"]).is_file() for row in found)


def test_what_is_asked_of_a_thing_is_answered_by_its_name() -> None:
    things = [(f"{number}.png", name) for number, name in enumerate(["apple", "green pear", "skirt"] * 10)]
    names = dict(things)
    asked = rows.names(things, Random(0))
    assert len(asked) == 24
    for row in asked:
        name, question = names[row["image"]], row["prefix"].removeprefix("answer en ")
        if question in rows.WHAT:
            assert row["suffix"] == name
        else:
            right = question in (f"is this a {name}?", f"is this an {name}?")
            assert row["suffix"] == ("yes" if right else "no")
            assert ("an " in question) == ("apple" in question)


def drawn(colour: str) -> Image.Image:
    """A coloured square of half the side on white."""
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste(Image.new("RGB", (32, 32), colour), (16, 16))
    return picture


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("drawing", "colour"),
    [("red", "red"), ("saddlebrown", "brown"), ("darkorange", "orange"), ("black", "black"), ("gray", None)],
)
def test_a_drawing_in_one_colour_is_asked_for_it(drawing: str, colour: str | None) -> None:
    assert rows.colour_of(png(drawn(drawing))) == colour


def test_a_drawing_in_two_colours_is_not_asked_for_one() -> None:
    half = drawn("blue")
    half.paste((0, 160, 0), (16, 16, 48, 32))
    assert rows.colour_of(png(half)) is None


def test_kinds_are_asked_for_as_often_with_the_answer_yes_as_no(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "KINDS", {"penguin": "a penguin", "plant": "a plant"})
    things = [
        ("1.png", "penguin"),
        ("2.png", "sphenisciform seabird"),
        ("3.png", "flightless bird"),
        ("4.png", "zebra"),
    ]
    asked = rows.kinds(things, WordNet(words), Random(0))
    assert sorted(row["suffix"] for row in asked) == ["no", "yes"]
    assert {row["prefix"] for row in asked} == {"answer en is this a penguin?"}
    yes, no = sorted(asked, key=lambda row: row["suffix"], reverse=True)
    assert yes["image"] in ("1.png", "3.png") and no["image"] == "2.png"
