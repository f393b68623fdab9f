"""The scripts of a recipe import one another by their bare names, as they do when they are run."""

import sys

from tests.conftest import ROOT

sys.path[:0] = [str(ROOT / "recipes"), str(ROOT / "recipes" / "nano")]
