"""`siglip data`, run as a user runs it."""

import json
from pathlib import Path

from PIL import Image

from tests.cli.conftest import Run


def make_pictures(folder: Path, count: int) -> None:
    """Pictures with captions; the last is none."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"thing {number}")
    (folder / f"{count - 1}.png").write_bytes(b"x")


def test_a_folder_is_packed_and_looked_at(siglip: Run, tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 6)
    options = ("--shard-size", "3", "--max-px", "20", "--max-broken", "0.5", "--workers", "0")
    result = siglip("data", "pack", "photos", "shards", *options, "--json")
    assert result.returncode == 3
    assert "1 of 6 failed" in result.stderr
    packed = json.loads(result.stdout)
    assert (packed["shards"], packed["samples"], packed["broken"][0]["name"]) == (2, 5, "5.png")
    result = siglip("data", "stats", "shards", "--sheet", "sheet.png", "--workers", "0", SIGLIP_CACHE=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    lines = dict(line.split("\t") for line in result.stdout.splitlines())
    assert (lines["samples"], lines["formats.PNG"], lines["longer_side_px.largest"]) == ("5", "5", "20.0")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 128


def test_too_many_broken_samples_are_one_line(siglip: Run, tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 3)
    result = siglip("data", "pack", "photos", "out", "--workers", "0")
    assert result.returncode == 1
    assert result.stderr.startswith("siglip: error: 1 of 3 samples are broken")
    assert result.stderr.count("\n") == 1


def test_arguments_of_the_other_action_are_refused(siglip: Run) -> None:
    for words, message in (
        (("stats", "a", "b"), "a destination is for `siglip data pack`"),
        (("stats", "a", "--max-px", "3"), "--max-px is for `siglip data pack`"),
        (("pack", "a", "b", "--model", "nano"), "--model is for `siglip data stats`"),
        (("pack", "a"), "pack needs a destination"),
        (("pack", "a", "b", "--max-broken", "2"), "expected a number from 0 to 1"),
        (("look", "a"), "invalid choice: 'look'"),
    ):
        result = siglip("data", *words)
        assert result.returncode == 2
        assert message in result.stderr


def test_columns_of_a_table_are_named_on_the_command_line(siglip: Run, tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 3)
    (tmp_path / "photos" / "rows.csv").write_text("URL,said\n0.png,first thing\n1.png,second\n")
    options = ("--column", "image=URL", "--column", "caption=said", "--workers", "0", "--json")
    stats = json.loads(siglip("data", "stats", "photos/rows.csv", *options).stdout)
    assert (stats["samples"], stats["captions_per_sample"]["mean"]) == (2, 1)
    result = siglip("data", "stats", "photos/rows.csv", "--workers", "0")
    assert "has the columns URL, said; expected one with pictures" in result.stderr
    assert "--column image=NAME" in result.stderr
    for wrong in ("picture=URL", "image", "image="):
        result = siglip("data", "stats", "photos/rows.csv", "--column", wrong)
        assert (result.returncode, result.stdout) == (2, "")
        assert f"expected image=NAME, caption=NAME or label=NAME, got {wrong!r}" in result.stderr
