"""Processes that work for another one: stop signals, and an asker that is gone."""

import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from siglip.data.workers import in_workers


def _signalled(signals: int, key: int) -> int:
    if key == 1:
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
    return key


def test_a_stop_signal_to_a_worker_costs_no_result_and_a_second_one_ends_it() -> None:
    assert list(in_workers(partial(_signalled, 1), range(4), workers=1)) == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match=r"killed by signal|exited unexpectedly"):
        list(in_workers(partial(_signalled, 2), range(4), workers=1))


def test_a_worker_whose_asker_is_gone_before_it_has_started_ends() -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    code = f"from siglip.data.workers import _start_worker; _start_worker({int(gone.stdout)}, 0); print('lives')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    code = code.replace(gone.stdout.decode().strip(), "os.getppid()").replace("from", "import os; from", 1)
    lives = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert lives.stdout == "lives\n"
