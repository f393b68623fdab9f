import itertools
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from siglip.cli.main import main
from tests.conftest import ROOT

# one process for all, since most of the time goes into starting one
RUNNER = """
import contextlib, io, json, sys
from siglip.cli.main import main
for example, stdin, words in json.loads(sys.argv[1]):
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(words)
    if code or not out.getvalue():
        sys.exit(f"{example}: exit code {code}, printed {out.getvalue()!r}")
"""


def test_every_example_of_the_help_pages_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    runs: list[tuple[str, str, list[str]]] = []
    for words in ([], ["classify"], ["score"], ["embed"], ["models"], ["info"], ["convert"], ["evaluate"]):
        main([*words, "--help"])
        for example in _examples(capsys.readouterr().out):
            *before, command = [part for part in _parts(example) if part[0] != "grep"]
            stdin = subprocess.run(before[0], capture_output=True, text=True).stdout if before else ""
            assert command[0] == "siglip"
            runs.append((example, stdin, command[1:]))
    assert len(runs) == 24
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    result = subprocess.run([sys.executable, "-c", RUNNER, json.dumps(runs)], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    made = {"sheet.png", "pictures.npy", "photos.parquet", "nano-open-clip", "report"}
    assert made <= {path.name for path in Path().iterdir()}


def _examples(page: str) -> list[str]:
    part = page.split("for example:\n")[1].split("\n\n")[0]
    return [line.strip() for line in part.splitlines()]


def _parts(line: str) -> list[list[str]]:
    """The commands of a pipe, without what follows `>`."""
    words = shlex.split(line)
    words = words[: words.index(">")] if ">" in words else words
    return [list(part) for bar, part in itertools.groupby(words, lambda word: word == "|") if not bar]
