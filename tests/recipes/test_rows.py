"""Shards become captions and questions: names without their keywords, sentences whole, each picture once."""

import io
import json
import tarfile
from pathlib import Path

import rows

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


def test_rows_are_names_sentences_and_questions_with_sure_answers(tmp_path: Path) -> None:
    rows.main(str(shard(tmp_path / "shards" / "train-000000.tar")), tmp_path / "rows")
    found = [json.loads(line) for line in (tmp_path / "rows" / "rows.jsonl").read_text().splitlines()]
    captions = [row["suffix"] for row in found if row["prefix"] == "caption en"]
    assert captions == ["green apple", "a bowl with tomatoes, cucumbers and lettuce", "skirt", "arrow to the left"]
    assert all((tmp_path / "rows" / row["image"]).is_file() for row in found)


def test_what_is_asked_of_a_thing_is_answered_by_its_name() -> None:
    from random import Random

    things = [(f"{number}.png", name) for number, name in enumerate(["apple", "green pear", "skirt"] * 10)]
    names = dict(things)
    asked = rows.questions(things, Random(0))
    assert len(asked) == 24
    for row in asked:
        name, question = names[row["image"]], row["prefix"].removeprefix("answer en ")
        if question in rows.WHAT:
            assert row["suffix"] == name
        else:
            right = question in (f"is this a {name}?", f"is this an {name}?")
            assert row["suffix"] == ("yes" if right else "no")
            assert ("an " in question) == ("apple" in question)
