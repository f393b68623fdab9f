"""What the documentation shows is run: every Python block, every command, and the printed help pages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text()):
            if match.group(1) == language:
                line = page.read_text()[: match.start()].count("\n") + 1
                found.append((f"{page.name}:{line}", match.group(2)))
    return found


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A folder with the sample pictures, as a reader has it; no network, and the command on its path."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in blocks("python")])
def test_python_in_the_documentation_runs(code: str, desk: dict[str, str]) -> None:
    result = subprocess.run([sys.executable, "-c", code], env=desk, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in blocks("console")])
def test_commands_in_the_documentation_run(text: str, desk: dict[str, str]) -> None:
    """Lines that start with `$ ` are commands; what follows each must be in its output, `...` standing for anything."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        result = subprocess.run(command, shell=True, env=desk, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        printed = re.sub(r"[ \t]+", " ", result.stdout)
        for line in filter(None, (re.sub(r"[ \t]+", " ", line).strip() for line in shown.splitlines())):
            pattern = ".*".join(map(re.escape, line.split("...")))
            assert re.search(pattern, printed), f"{command}\nprinted\n{result.stdout}\nwithout the line\n{line}"
