import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siglip.cli import output
from siglip.cli.output import Column, Report, as_json, fits, print_record, report_failures, shortest, shown
from siglip.errors import Failure

ROWS = [("a\tb\n.png", "cat", 0.5), ("a\tb\n.png", "dog", 1.25e-7)]
RECORD = {"image": "a\tb\n.png", "labels": ["cat", "dog"]}
COLUMNS = [Column("image", ["a\tb\n.png"]), Column("label", ["cat", "dog"]), Column("probability", width=8)]


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")


def _printed(form, capsys: pytest.CaptureFixture[str], columns=COLUMNS, record=RECORD, rows=ROWS) -> str:
    report = Report(form, columns, key="images", head={"model": "nano"})
    report.add(record, rows)
    report.close([Failure("bad.png", "broken")])
    return capsys.readouterr().out


def test_values_separated_by_tabs_escape_what_would_break_a_row(capsys: pytest.CaptureFixture[str]):
    assert _printed("tsv", capsys) == (
        "image\tlabel\tprobability\na\\tb\\n.png\tcat\t0.5\na\\tb\\n.png\tdog\t1.25e-07\n"
    )


def test_a_table_is_aligned_and_names_each_picture_once(capsys: pytest.CaptureFixture[str]):
    assert _printed("table", capsys).splitlines() == [
        "image       label  probability",
        "a\\tb\\n.png  cat    0.500",
        "            dog    1.25e-07",
    ]


def test_a_table_has_a_bold_heading_and_dim_further_rows_unless_colour_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    heading, first, second = _printed("table", capsys).splitlines()
    assert heading.startswith("\x1b[1mimage") and heading.endswith("\x1b[0m")
    assert "\x1b" not in first
    assert second.startswith("\x1b[2m") and second.endswith("\x1b[0m")
    report = Report("table", COLUMNS, key="images", head={})
    report.add(RECORD, ROWS[:1], best=1)
    assert "\x1b[1mcat  \x1b[0m  0.500" in capsys.readouterr().out
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in _printed("table", capsys)


def test_one_document_holds_heading_records_and_failures(capsys: pytest.CaptureFixture[str]):
    assert json.loads(_printed("json", capsys)) == {
        "model": "nano",
        "images": [RECORD],
        "failures": [{"name": "bad.png", "reason": "broken"}],
    }


def test_one_object_a_line_holds_the_record(capsys: pytest.CaptureFixture[str]):
    (line,) = _printed("jsonl", capsys).splitlines()
    assert json.loads(line) == RECORD


def test_a_narrow_terminal_clips_the_middle_of_the_widest_column(capsys: pytest.CaptureFixture[str]):
    name = "pictures/of/a/long/journey/in/2024/final.png"
    columns = [Column("image", [name]), Column("label", ["cat"]), Column("probability", width=8)]
    assert not fits(columns)
    heading, row = _printed("table", capsys, columns, rows=[(name, "cat", 0.5)]).splitlines()
    assert heading == "image                 label  probability"
    assert row == "pictures...final.png  cat    0.500"


def test_wide_and_combining_characters_take_the_cells_they_take(capsys: pytest.CaptureFixture[str]):
    names = ["\u732b.png", "e\u0301.png", "abcdef"]
    columns = [Column("image", names), Column("label", ["x"])]
    lines = _printed("table", capsys, columns, rows=[(names[0], "x")]).splitlines()
    lines += _printed("table", capsys, columns, rows=[(names[1], "x")]).splitlines()[1:]
    assert lines == ["image   label", "\u732b.png  x", "e\u0301.png   x"]


def test_numbers_are_short_for_readers_and_whole_for_programs(capsys: pytest.CaptureFixture[str]):
    assert [shown(value) for value in (0.5, 0.01234567, 0.00012345, 1.2345e-5, 1.0, 0.0)] == [
        "0.500", "0.0123", "0.000123", "1.23e-05", "1.00", "0.00",
    ]  # fmt: skip
    assert shortest(np.float32(0.1)) == 0.1
    value = np.float32(1 / 3)
    assert np.float32(shortest(value)) == value


@given(value=st.floats(0, 1, width=32))
def test_the_shortest_number_is_still_the_same_float32(value: float):
    assert np.float32(shortest(np.float32(value))) == np.float32(value)


# marks that combine with the character before them take no cell, so they would not count in len()
WORDS = st.text(st.characters(exclude_categories=["Mn", "Mc", "Me"]))


@given(name=WORDS, label=WORDS)
def test_every_row_is_one_line_that_fits_whatever_the_names_hold(name: str, label: str):
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("siglip.cli.output._write", lines.append)
        columns = [Column("image", [name]), Column("label", [label]), Column("probability", width=8)]
        for form in ("table", "tsv"):
            Report(form, columns, key="images", head={}).add({}, [(name, label, 0.5), (name, label, 0.25)])
    table, tsv = lines[:3], lines[3:]
    assert all(line.count("\t") == 2 for line in tsv)
    assert all(len(line.splitlines()) <= 1 and "\x1b" not in line for line in lines)
    assert all(len(line) <= 40 for line in table)


def test_names_that_are_no_text_become_escapes_in_json_only():
    name = os.fsdecode(b"odd\xff.png")
    assert as_json({"image": "\u732b"}) == '{"image": "\u732b"}'
    assert as_json({"image": name}) == '{"image": "odd\\udcff.png"}'
    assert json.loads(as_json({"image": name})) == {"image": name}


def test_a_record_on_a_screen_has_few_digits_megabytes_and_lines_that_end_between_words(
    capsys: pytest.CaptureFixture[str],
):
    record = {
        "step_s": 0.7763531903322777,
        "pairs": 12345.678,
        "memory_bytes": {"weights": 12219912},
        "left": [],
        "names": ["a first.png", "a second.png", "a third.png"],
        "path": "a/path/that/is/longer/than/the/terminal/is/wide.png",
        "exact": True,
    }
    print_record("table", record)
    assert capsys.readouterr().out.splitlines() == [
        "step_s                0.776",
        "pairs                 12346",
        "memory_bytes.weights  12 MB",
        "left                  none",
        "names                 a first.png, a",
        "                      second.png, a",
        "                      third.png",
        "path                  a/path/that/is/longer/than/the/terminal/is/wide.png",
        "exact                 true",
    ]
    print_record("tsv", {"step_s": 0.7763531903322777, "left": []})
    assert capsys.readouterr().out == "step_s\t0.7763531903322777\nleft\t[]\n"


def test_a_record_is_a_line_for_each_property(capsys: pytest.CaptureFixture[str]):
    record = {"model": "nano", "pictures": {"image_size": 64, "mean": (0.5, 0.5)}}
    print_record("table", record)
    print_record("tsv", record)
    print_record("jsonl", record)
    assert capsys.readouterr().out.splitlines() == [
        "model                nano",
        "pictures.image_size  64",
        "pictures.mean        0.5, 0.5",
        "model\tnano",
        "pictures.image_size\t64",
        "pictures.mean\t[0.5, 0.5]",
        '{"model": "nano", "pictures": {"image_size": 64, "mean": [0.5, 0.5]}}',
    ]


def test_failures_are_counted_and_listed_on_stderr(capsys: pytest.CaptureFixture[str]):
    assert report_failures([], 3) == 0
    assert report_failures([Failure("a\n.png", "broken\tfile"), Failure("b", "empty")], 3) == 3
    assert capsys.readouterr() == ("", "siglip: 2 of 3 failed:\n  a\\n.png: broken\\tfile\n  b: empty\n")


def test_totals_are_told_to_a_bar_as_what_was_added() -> None:
    added: list[int] = []
    told = output.from_totals(added.append)
    for count in (3, 3, 10):
        told(count, 10)
    assert added == [3, 0, 7]
