import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_after_kills_at_random_moments_the_library_is_that_of_an_uninterrupted_run(tmp_path: Path):
    """Ten here; `python -m tests.search.kills 100 FOLDER` for more."""
    command = [sys.executable, "-m", "tests.search.kills", "10", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["equal"]
    assert told["kills"] >= 3
    assert told["embedded"] <= told["pictures"] + told["batch"] * told["kills"]
    assert {"catalogue.db", "codes-1.tv", "lock", "thumbs.db", "vectors-1.f16"} >= {
        name for name in told["files"] if not name.endswith(("-wal", "-shm"))
    }
