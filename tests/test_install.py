"""An editable install works from any folder, also from the one that holds a clone named siglip."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def above(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clone named siglip, and a virtual environment into which it is installed editably."""
    folder = tmp_path_factory.mktemp("above")
    clone = folder / "siglip"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "siglip", clone / "siglip", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta; print(build_meta.build_editable(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=clone, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "environment", symlinks=True)
    (packages,) = (folder / "environment").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # the libraries that are installed here; what is installed editably here stays out
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "import siglip; print(siglip.__file__)"],
        ["-m", "siglip", "--version"],
    ],
)
@pytest.mark.parametrize("place", [".", "siglip", "environment"])
def test_the_package_is_found_from_every_folder(above: Path, place: str, words: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = above / "environment" / "bin" / "python"
    done = subprocess.run([python, *words], cwd=above / place, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    if "siglip.__file__" in words[-1]:
        assert Path(done.stdout.strip()) == above / "siglip" / "siglip" / "__init__.py"
