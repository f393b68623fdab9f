"""The scripts of a recipe import one another by their bare names, as they do when they are run."""

import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path[:0] = [str(ROOT / "recipes"), str(ROOT / "recipes" / "nano")]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A WordNet of three synsets: penguin, a sphenisciform seabird, a bird; and `bank`, which means too much."""
    folder = tmp_path / "words" / "dict"
    folder.mkdir(parents=True)
    (folder / "data.noun").write_text(
        "  1 the licence\n"
        "00000001 05 n 02 penguin 0 flightless_bird 0 002 @ 00000002 n 0000 #m 00000009 n 0000 | from the south\n"
        "00000002 05 n 01 sphenisciform_seabird 0 001 @ 00000003 n 0000 | a seabird\n"
        "00000003 05 n 01 bird 0 000 | it flies\n"
    )
    (folder / "index.noun").write_text(
        "  1 the licence\n"
        "penguin n 1 2 @ #m 1 0 00000001  \n"
        "flightless_bird n 1 1 @ 1 0 00000001  \n"
        "sphenisciform_seabird n 1 1 @ 1 0 00000002  \n"
        "bank n 4 1 @ 4 1 00000003 00000001 00000002 00000003  \n"
    )
    return folder.parent
