import io
import itertools
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from siglip.cli.main import main
from tests.conftest import ROOT


def _examples(page: str) -> list[str]:
    part = page.split("for example:\n")[1].split("\n\n")[0]
    return [line.strip() for line in part.splitlines()]


@pytest.fixture
def _beside_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("_beside_the_samples")
@pytest.mark.parametrize("name", [None, "classify", "score", "embed", "models", "info", "convert"])
def test_every_example_of_a_help_page_runs(
    name: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    main([name, "--help"] if name else ["--help"])
    examples = _examples(capsys.readouterr().out)
    assert len(examples) == 3
    for example in examples:
        *before, words = [part for part in _parts(example) if part[0] not in ("grep", "head")]
        if before:
            found = subprocess.run(before[0], stdout=subprocess.PIPE, check=True).stdout
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(found)))
        assert words[0] == "siglip"
        assert main(words[1:]) == 0, example
        assert capsys.readouterr().out, example


def _parts(line: str) -> list[list[str]]:
    """The commands of a pipe, without what follows `>`."""
    words = shlex.split(line)
    words = words[: words.index(">")] if ">" in words else words
    return [list(part) for bar, part in itertools.groupby(words, lambda word: word == "|") if not bar]
