"""What a person sees: the command line in a pseudo-terminal."""

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from siglip.releases import PALIGEMMA_RELEASES, RELEASES
from tests.command import start

Make = Callable[[str], Path]


def _seen(folder: Path, words: list[str], *, columns: int, stdout: int | None = None) -> list[str]:
    """Lines that appear on a terminal that wide, where stderr goes, and stdout unless it is given."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    with Path(os.devnull).open("rb") as nothing:
        streams = (nothing.fileno(), theirs if stdout is None else stdout, theirs)
        process = start(words, folder, streams, {**environment, "TERM": "xterm"})
    os.close(theirs)
    seen = b""
    try:
        while block := os.read(ours, 4096):
            seen += block
    except OSError:
        # this is how Linux says that the other end is closed
        pass
    process.join()
    os.close(ours)
    return seen.decode().replace("\r\n", "\n").splitlines()


def test_a_terminal_shows_an_aligned_table_within_its_width_and_no_bar(tmp_path: Path, picture: Make):
    picture("a/folder/with/a/rather/long/name/picture.png")
    picture("b.png")
    words = ["classify", "a", "b.png", "--labels", "cat", "dog"]
    heading, *rows = _seen(tmp_path, words, columns=50)
    assert heading == f"\x1b[1m{'image':30}  label  probability\x1b[0m"
    assert rows[0].startswith("a/folder/with...me/picture.png  ")
    assert rows[1].startswith("\x1b[2m" + " " * 32)
    assert rows[2].startswith("b.png" + " " * 27)
    assert len(rows) == 4


def test_a_bar_counts_on_the_terminal_while_results_go_elsewhere(tmp_path: Path, picture: Make):
    picture("a.png")
    with (tmp_path / "out.tsv").open("w") as out:
        seen = _seen(tmp_path, ["classify", "a.png", "--labels", "cat"], columns=80, stdout=out.fileno())
    assert "/1 [" in "".join(seen)
    assert (tmp_path / "out.tsv").read_text().startswith("image\tlabel\tprobability\na.png\tcat\t")


def test_the_table_of_models_fits_eighty_columns_unclipped(tmp_path: Path):
    lines = _seen(tmp_path, ["models"], columns=80)
    assert len(lines) == 3 + len(RELEASES) + len(PALIGEMMA_RELEASES)  # a heading, and the two built-in models
    assert not any("..." in line for line in lines)
    assert all(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) <= 80 for line in lines)


RECIPE = """
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig

def recipe():
    data = DataSpec(train="{data}", held_out="{data}", workers=0)
    return TrainConfig(model=ModelSpec(source="nano"), data=data, optimizer=OptimizerSpec(lr=2e-5), steps=3,
                       batch_size=4, log_every=1, evaluate_every=2)
"""


@pytest.mark.parametrize("columns", [80, 120])
def test_the_bar_of_a_training_fits_and_tells_loss_score_speed_and_time_left(tmp_path: Path, columns: int):
    (tmp_path / "recipe.py").write_text(RECIPE.format(data=Path(__file__).parents[2] / "samples"))
    lines = _seen(tmp_path, ["train", "recipe.py", "--out", "run"], columns=columns)
    assert lines[0] == "run begins: 3 steps of 4 of 16 pairs"
    bars = [line.rstrip() for line in lines if "%|" in line.replace(" ", "")]
    assert any(re.search(r"0/3  judging held-out data$", bar) for bar in bars)
    at_two = next(bar for bar in bars if " 2/3 " in bar and bar.endswith("left"))
    assert re.search(r"2/3  loss [\d.]+  recall@1 0\.\d{3}  [\d.e+]+ pairs/s  \d+s left$", at_two)
    assert max(map(len, bars)) <= columns
    assert any(line.startswith("step 2/3  held_out/text_to_image/recall@1 0.") for line in lines)
    assert lines[-1] == "export  run/export"


def test_a_dry_run_and_statistics_are_a_screen_each(tmp_path: Path):
    samples = Path(__file__).parents[2] / "samples"
    (tmp_path / "recipe.py").write_text(RECIPE.format(data=samples))
    lines = _seen(tmp_path, ["train", "recipe.py", "--dry-run"], columns=80)
    assert lines[0].startswith("3 steps of 4 samples, 0.75 passes over 16: about ")
    assert all(len(line) <= 80 or str(samples) in line for line in lines)
    assert len(lines) <= 24
    shown = " ".join(" ".join(lines).split())
    assert re.search(r"memory weights 12 MB, gradients 12 MB, optimizer 24 MB, activations [\d.]+ MB ", shown)
    assert f"recipe model.source=nano data.train={samples} data.held_out={samples} data.workers=0 " in shown
    assert "optimizer.lr=2e-05 steps=3 batch_size=4 log_every=1 evaluate_every=2 all else by default" in shown
    lines = _seen(tmp_path, ["data", "stats", str(samples), "--workers", "0"], columns=80)
    assert any(line.startswith("16 samples, ") for line in lines)
    assert "samples         16, none broken" in lines
    assert "equal pictures  none" in lines
