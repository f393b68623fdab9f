"""The page is whole, safe and self-contained; results.json holds every number; both appear together."""

import base64
import io
import json
import re
import tarfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siglip.data import Source, open_source
from siglip.errors import DataError, Failure
from siglip.evaluation.report import DataFacts, Evaluation, Judged, as_record, report_page, write_report
from siglip.evaluation.result import Answer, ClassResult, Mistake, Result

HOSTILE = "<script>alert('&')</script>\" onload=x"


class Page(HTMLParser):
    """Checks that tags close in order, and gathers texts, pictures and addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.pictures: list[Image.Image] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        for name, value in attrs:
            if name in ("src", "href"):
                self.addresses.append(value or "")
            if name == "alt":
                self.alts.append(value or "")
        if tag == "img":
            content = base64.b64decode(self.addresses[-1].partition("base64,")[2])
            self.pictures.append(Image.open(io.BytesIO(content)).convert("RGB"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A flat red square, and noise that only JPEG makes small."""
    Image.new("RGB", (400, 400), "red").save(tmp_path / "a.png")
    noise = np.random.default_rng(0).integers(0, 256, (90, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"caption {name}")
    return open_source(tmp_path)


def evaluation(*shares: float, source: Source, task: str = "retrieval", found: tuple[Answer, ...] = ()) -> Evaluation:
    mistakes = tuple(
        Mistake(
            index=index,
            name=f"{name}.png",
            expected=Answer(f"caption {name}", 0.125),
            found=found or (Answer(HOSTILE, 0.5), Answer(f"caption {name}", 0.125)),
        )
        for index, name in enumerate("ab")
    )
    results = [
        Result(
            task=task,
            numbers={"text_to_image/recall@1": share},
            counts={"pictures": 1234, "broken": 1},
            settings={"templates": [f"{{}} {number}" for number in range(5)]},
            per_class=tuple(
                ClassResult(name=f"class {number}", pictures=3, top1=number / 50, taken_for=HOSTILE)
                for number in reversed(range(50))
            ),
            mistakes=mistakes,
        )
        for share in shares
    ]
    return Evaluation(
        source=source,
        data=DataFacts("some data", 1235, "d" * 64),
        judged=[Judged(f"model {number}", f"{number}" * 64, result) for number, result in enumerate(results)],
        broken=[Failure("c.png", "cut short")],
    )


def test_the_page_needs_nothing_else_and_runs_nothing(source: Source) -> None:
    page = Page(report_page(evaluation(0.4321, source=source)))
    assert "script" not in page.tags
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert HOSTILE in page.texts
    assert "http" not in "".join(page.addresses)


def test_pictures_of_mistakes_are_small_and_in_the_smaller_format(source: Source) -> None:
    page = Page(report_page(evaluation(0.4321, source=source)))
    assert [picture.size for picture in page.pictures] == [(256, 256), (256, 77)]
    assert page.pictures[0].getpixel((128, 128)) == (255, 0, 0)
    assert [address[:15] for address in page.addresses] == ["data:image/png;", "data:image/jpeg"]
    assert page.alts == ["caption a", "caption b"]


def test_numbers_classes_answers_and_fingerprints_are_told(source: Source) -> None:
    page = Page(report_page(evaluation(0.4321, source=source)))
    for text in ("a text's picture is found first", "43.2 %", "Of 1,234 pictures, 1 broken.", "0.125", "a.png",
                 "d" * 64, "0" * 64, "model 0", "{} 0, {} 1, {} 2 and 2 more, see results.json",
                 "1 samples could not be used", "c.png: cut short"):  # fmt: skip
        assert text in page.texts, text
    classes = [text for text in page.texts if re.fullmatch(r"class \d+", text)]
    assert classes == [f"class {number}" for number in range(50)], "the hardest first"
    assert "10 more classes" in page.texts


def test_several_models_stand_side_by_side_and_the_best_is_marked(source: Source) -> None:
    page = report_page(evaluation(0.25, 0.5, source=source))
    assert re.search(r"percent'>25\.0 %.*percent best'>50\.0 %", page, re.DOTALL)
    assert [text for text in Page(page).texts if text == "model 1"]
    assert "best'" not in report_page(evaluation(0.5, 0.5, source=source))


def test_a_right_answer_among_those_given_is_marked(source: Source) -> None:
    page = report_page(evaluation(0.5, source=source))
    assert page.count("<li class=right>") == 4  # expected and found, for two pictures
    assert report_page(evaluation(0.5, found=(Answer("x", 1.0),), source=source)).count("<li class=right>") == 2


def test_json_holds_what_was_measured(tmp_path: Path, source: Source) -> None:
    write_report(evaluation(0.25, 0.5, source=source), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record == json.loads(json.dumps(as_record(evaluation(0.25, 0.5, source=source))))
    assert record["task"] == "retrieval"
    assert record["data"] == {"source": "some data", "samples": 1235, "fingerprint": "d" * 64}
    assert [model["numbers"]["text_to_image/recall@1"] for model in record["models"]] == [0.25, 0.5]
    assert record["models"][0]["mistakes"][0]["found"][0] == {"text": HOSTILE, "score": 0.5}
    assert record["failures"] == [{"name": "c.png", "reason": "cut short"}]
    assert "train" not in record


def test_names_that_are_not_utf_8_do_not_stop_the_report(tmp_path: Path, source: Source) -> None:
    write_report(evaluation(0.5, found=(Answer("\udcff.png", 1.0),), source=source), tmp_path)
    assert "?.png" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "results.json").read_text())


def test_a_report_that_fails_leaves_the_last_one(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(evaluation(0.5, source=source), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(before) == {"report.html", "results.json"}
    monkeypatch.setenv("SIGLIP_CACHE", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name in ("a.png", "a.txt", "b.png", "b.txt"):
            tar.add(tmp_path / name, name)
    shard = open_source(tmp_path / "shard.tar")
    (tmp_path / "shard.tar").unlink()
    with pytest.raises(DataError, match="has been removed"):
        write_report(evaluation(0.75, source=shard), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_picture_that_cannot_be_had_any_more_leaves_its_place_empty(tmp_path: Path, source: Source) -> None:
    (tmp_path / "a.png").unlink()
    assert len(Page(report_page(evaluation(0.5, source=source))).pictures) == 1
