"""What a person sees: the command line in a pseudo-terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

from siglip.releases import PALIGEMMA_RELEASES, RELEASES

Make = Callable[[str], Path]


def _seen(folder: Path, words: list[str], *, columns: int, stdout: int | None = None) -> list[str]:
    """Lines that appear on a terminal that wide, where stderr goes, and stdout unless it is given."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "siglip", *words],
        cwd=folder, stdout=theirs if stdout is None else stdout, stderr=theirs, stdin=subprocess.DEVNULL,
        env={**environment, "TERM": "xterm", "OMP_NUM_THREADS": "1"},
    ):  # fmt: skip
        os.close(theirs)
        seen = b""
        try:
            while block := os.read(ours, 4096):
                seen += block
        except OSError:
            # this is how Linux says that the other end is closed
            pass
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
