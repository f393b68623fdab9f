import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from siglip import Embedder, SiglipModel, SiglipProcessor
from siglip.cli.main import main
from tests.conftest import ROOT

Make = Callable[[str], Path]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
LABELS = ["teddy bear", "penguin", "bicycle", "taxi"]
TEMPLATE = ["--template", "a drawing of {}"]


def test_probabilities_are_those_of_the_model_best_first(capsys: pytest.CaptureFixture[str]):
    files = [str(ROOT / "samples" / name) for name in ("penguin.png", "teddy_bear.png")]
    assert main(["classify", *files, "--labels", *LABELS, *TEMPLATE, "--top", "4", "--dtype", "float32", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    model, processor = SiglipModel.from_pretrained("nano"), SiglipProcessor.from_pretrained("nano")
    texts = [f"a drawing of {label}" for label in LABELS]
    with torch.inference_mode():
        expected = model(**processor(text=texts, images=files, return_tensors="pt")).logits_per_image.sigmoid()
    assert (document["model"], document["failures"]) == ("nano", [])
    for file, record, row in zip(files, document["images"], expected, strict=True):
        order = row.argsort(descending=True).tolist()
        assert record["image"] == file
        assert [entry["label"] for entry in record["labels"]] == [LABELS[i] for i in order]
        assert [entry["probability"] for entry in record["labels"]] == pytest.approx(row[order].tolist(), rel=1e-3)


def test_a_repeated_label_is_scored_once_and_that_is_said(capsys: pytest.CaptureFixture[str]):
    strawberry = str(ROOT / "samples" / "strawberry.png")
    assert main(["classify", strawberry, "--labels", "strawberry", "pig", "strawberry", "pig"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[1] for line in out.splitlines()[1:]] == ["strawberry", "pig"]
    assert err == "siglip: 2 of 4 labels repeat an earlier one and are left out; the first is 'strawberry'\n"


def test_several_templates_are_averaged(capsys: pytest.CaptureFixture[str]):
    file, templates = str(ROOT / "samples" / "penguin.png"), ["{}", "a drawing of a {}"]
    options = ["--template", *templates, "--top", "1", "--dtype", "float32", "--jsonl"]
    assert main(["classify", file, "--labels", *LABELS, *options]) == 0
    (found,) = json.loads(capsys.readouterr().out)["labels"]
    embedder = Embedder.from_pretrained("nano", dtype="float32")
    vectors = [embedder.embed_texts([template.format(found["label"])]).vectors[0] for template in templates]
    mean = (vectors[0] + vectors[1]) / 2
    expected = embedder.probabilities(embedder.embed_images([file]).vectors, mean[None] / np.linalg.norm(mean))
    assert found["probability"] == pytest.approx(expected.item(), rel=1e-4)


def test_the_template_is_the_models_own_unless_told_otherwise(capsys: pytest.CaptureFixture[str]):
    words = ["classify", str(ROOT / "samples" / "pig.png"), "--labels", *LABELS, "--json"]
    own = SiglipProcessor.from_pretrained("nano").templates

    def classified(*more: str) -> dict[str, Any]:
        assert main([*words, *more]) == 0
        return json.loads(capsys.readouterr().out)

    assert classified() == classified("--template", *own)
    assert classified()["templates"] == list(own)
    assert classified()["images"] != classified("--template", "it is not {}")["images"]


@pytest.fixture
def nasty(tmp_path: Path, picture: Make) -> list[str]:
    """A folder with five readable pictures of odd names; returns the names of five broken ones beside them."""
    for name in (
        "plain.png",
        "tab\tand\nline.png",
        "\u732b \u00e9t\u00e9.png",
        "sub/deep.PNG",
        os.fsdecode(b"\xff.png"),
    ):
        picture(f"album/{name}")
    whole = (ROOT / "samples" / "cat.jpg").read_bytes()
    broken = {
        "empty.png": b"",
        "text.jpg": b"this is no picture",
        "cut.jpg": whole[: len(whole) // 2],
        "header.png": b"\x89PNG\r\n\x1a\n",
        "bomb.ppm": b"P6 99999 99999 255\n",
    }
    for name, content in broken.items():
        (tmp_path / "album" / name).write_bytes(content)
    return sorted(f"album/{name}" for name in broken)


def test_broken_pictures_are_listed_at_the_end_and_the_others_classified(siglip: Run, nasty: list[str]):
    result = siglip("classify", "album", "gone.png", "--labels", "cat", "dog", "--top", "1")
    assert result.returncode == 3
    heading, *rows = result.stdout.split("\n")[:-1]
    assert heading == "image\tlabel\tprobability"
    assert sorted(row.split("\t")[0] for row in rows) == sorted(
        ["album/plain.png", "album/tab\\tand\\nline.png", "album/\u732b \u00e9t\u00e9.png", "album/\udcff.png",
         "album/sub/deep.PNG"]
    )  # fmt: skip
    first, *listed = result.stderr.splitlines()
    assert first == "siglip: 6 of 11 failed:"
    assert sorted(line.split(":")[0].strip() for line in listed) == [*nasty, "gone.png"]


@pytest.mark.usefixtures("nasty")
def test_json_lines_name_every_picture_also_where_its_name_is_no_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"album\n")))
    assert main(["classify", "-", "--labels", "cat", "dog", "--jsonl"]) == 3
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 5
    assert {record["image"] for record in records} >= {"album/tab\tand\nline.png", "album/\udcff.png"}
    assert all(len(record["labels"]) == 2 for record in records)


def test_names_after_two_dashes_may_begin_with_one(
    tmp_path: Path, picture: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("-dash.png", "--labels", "a.png"):
        picture(name)
    for words, expected in (
        (["--labels", "cat", "--jsonl", "--", "-dash.png", "--labels"], {"./-dash.png", "./--labels"}),
        (["a.png", "--labels", "cat", "--jsonl", "--", "-dash.png"], {"a.png", "./-dash.png"}),
    ):
        assert main(["classify", *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {json.loads(line)["image"] for line in lines} == expected


def test_no_readable_picture_prints_no_row_and_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.png").touch()
    assert main(["classify", str(tmp_path), "--labels", "cat", "--sheet", str(tmp_path / "sheet.png")]) == 3
    assert capsys.readouterr().out == "image\tlabel\tprobability\n"
    assert not (tmp_path / "sheet.png").exists()


def test_the_sheet_shows_the_readable_pictures_and_replaces_an_older_file(
    tmp_path: Path, picture: Make, capsys: pytest.CaptureFixture[str]
):
    names = [str(picture(name)) for name in ("a.png", "b.png")]
    (tmp_path / "c.png").touch()
    sheet = tmp_path / "out" / "sheet.png"
    sheet.parent.mkdir()
    sheet.write_text("old")
    assert main(["classify", *names, str(tmp_path / "c.png"), "--labels", "cat", "--sheet", str(sheet)]) == 3
    assert f"siglip: {sheet} shows 2 of 2 pictures\n" in capsys.readouterr().err
    with Image.open(sheet) as drawn:
        assert (drawn.format, drawn.width > 2 * 192) == ("PNG", True)
    assert [file.name for file in sheet.parent.iterdir()] == ["sheet.png"]


def test_results_come_at_once_and_ctrl_c_ends_quietly_while_another_picture_hangs(
    picture: Make, silent_server: tuple[str, threading.Event], tmp_path: Path
):
    address, asked = silent_server
    words = ["classify", "a.png", "b.png", "c.png", address, "--labels", "cat", "--jsonl", "--batch-size", "1"]
    for name in words[1:4]:
        picture(name)
    with subprocess.Popen(
        [sys.executable, "-m", "siglip", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        assert json.loads(process.stdout.readline())["image"] == "a.png"
        asked.wait()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == b""


def test_a_reader_that_leaves_early_stops_the_work_without_a_word(picture: Make, tmp_path: Path):
    for number in range(40):
        picture(f"{number}.png")
    line = f"set -o pipefail; {sys.executable} -m siglip classify . --labels a b c --jsonl --batch-size 4 | head -1"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stderr, len(result.stdout.splitlines())) == (0, "", 1)
