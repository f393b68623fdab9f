"""Processes that work for another one, where that one is gone."""

import subprocess
import sys


def test_a_worker_whose_asker_is_gone_before_it_has_started_ends() -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    code = f"from siglip.data.workers import _start_worker; _start_worker({int(gone.stdout)}, 0); print('lives')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    code = code.replace(gone.stdout.decode().strip(), "os.getppid()").replace("from", "import os; from", 1)
    lives = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert lives.stdout == "lives\n"
