import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from siglip import Embedder, SiglipConfig
from siglip.cli.main import main
from tests.conftest import ROOT

Make = Callable[[str], Path]
WIDTH = SiglipConfig.from_pretrained("nano").text_config.hidden_size
FILES = [str(ROOT / "samples" / name) for name in ("penguin.png", "cat.jpg", "teapot.png")]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_vectors_and_rows_match_and_carry_the_fingerprint(capsys: pytest.CaptureFixture[str]):
    assert main(["embed", *FILES, "--out", "made/here/pictures", "--json"]) == 0
    embedder = Embedder.from_pretrained("nano")
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "vectors": "made/here/pictures.npy", "rows": "made/here/pictures.jsonl", "count": 3, "dim": WIDTH,
        "model": "nano", "fingerprint": embedder.fingerprint, "failures": [],
    }  # fmt: skip
    vectors = np.load(told["vectors"])
    assert vectors.dtype == np.float32
    assert np.abs(vectors - embedder.embed_images(FILES).vectors).max() < 1e-6
    rows = [json.loads(line) for line in Path(told["rows"]).read_text().splitlines()]
    assert rows == [
        {"row": row, "name": name, "kind": "image", "model": "nano", "fingerprint": embedder.fingerprint}
        for row, name in enumerate(FILES)
    ]


def test_texts_of_a_file_become_parquet_rows(tmp_path: Path):
    (tmp_path / "texts.txt").write_text("# two\na penguin\n\n\u00e9t\u00e9\n")
    assert main(["embed", "--texts-file", "texts.txt", "--out", "texts.npy", "--parquet"]) == 0
    embedder = Embedder.from_pretrained("nano")
    assert np.abs(np.load("texts.npy") - embedder.embed_texts(["a penguin", "\u00e9t\u00e9"]).vectors).max() < 1e-6
    table = pq.read_table("texts.parquet")
    assert table.column_names == ["row", "name", "kind", "model", "fingerprint"]
    assert table.to_pylist()[1] == {
        "row": 1, "name": "\u00e9t\u00e9", "kind": "text", "model": "nano", "fingerprint": embedder.fingerprint,
    }  # fmt: skip


def test_rows_of_broken_pictures_are_left_out_and_listed(capsys: pytest.CaptureFixture[str], picture: Make):
    odd = os.fsdecode(b"\xff.png")
    picture(odd)
    Path("bad.png").write_text("no picture")
    assert main(["embed", FILES[0], "bad.png", odd, "--out", "v"]) == 3
    assert "siglip: 1 of 3 failed:\n  bad.png: " in capsys.readouterr().err
    assert np.load("v.npy").shape == (2, WIDTH)
    assert [json.loads(line)["name"] for line in Path("v.jsonl").read_text().splitlines()] == [FILES[0], odd]
    assert main(["embed", FILES[0], odd, "--out", "p", "--parquet"]) == 0
    assert pq.read_table("p.parquet")["name"].to_pylist() == [FILES[0], "\\xff.png"]


def test_nothing_readable_gives_files_without_rows():
    Path("bad.png").write_text("no picture")
    assert main(["embed", "bad.png", "--out", "v"]) == 3
    assert np.load("v.npy").shape == (0, WIDTH)
    assert Path("v.jsonl").read_text() == ""
    assert main(["embed", "bad.png", "--out", "v", "--parquet"]) == 3
    assert pq.read_table("v.parquet").num_rows == 0
    assert not Path("v.jsonl").exists(), "rows of vectors that are gone"


def test_an_error_leaves_the_older_files_and_nothing_else(capsys: pytest.CaptureFixture[str]):
    Path("v.npy").write_text("old")
    Path("v.jsonl").write_text("old")
    Path("model").mkdir()
    assert main(["embed", FILES[0], "--out", "v", "--model", "./model"]) == 1
    assert capsys.readouterr().err.startswith("siglip: error: ")
    assert {file.name: file.read_text() for file in Path().glob("*v*")} == {"v.npy": "old", "v.jsonl": "old"}


def test_a_place_that_cannot_be_written_is_told_before_the_work(capsys: pytest.CaptureFixture[str]):
    Path("file").touch()
    Path("folder.npy").mkdir()
    assert main(["embed", FILES[0], "--out", "file/v"]) == 1
    assert main(["embed", FILES[0], "--out", "folder"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "siglip: error: file: File exists",
        "siglip: error: folder.npy is a folder; choose another name",
    ]


def test_ctrl_c_leaves_no_file(tmp_path: Path, picture: Make, silent_server: tuple[str, threading.Event]):
    address, asked = silent_server
    picture("a.png")
    words = ["embed", "a.png", address, "--out", "v"]
    with subprocess.Popen([sys.executable, "-m", "siglip", *words], stderr=subprocess.PIPE) as process:
        asked.wait()
        assert len(list(tmp_path.glob(".v.*"))) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr and process.stderr.read() == b""
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
