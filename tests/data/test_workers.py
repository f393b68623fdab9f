"""Processes that work for another one: stop signals, an asker that is gone, and workers that are."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from siglip.data.workers import in_workers
from siglip.errors import DataError


def _signalled(number: signal.Signals, key: int) -> int:
    if key == 1:
        for _ in range(3):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
    return key


def _hang(key: int) -> int:
    while key == 1:
        time.sleep(60)
    return key


def test_a_stop_signal_that_reaches_a_worker_costs_no_result() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        assert list(in_workers(partial(_signalled, number), range(4), workers=1)) == [0, 1, 2, 3]


def test_a_worker_that_the_system_ends_is_one_error_that_says_how() -> None:
    with pytest.raises(DataError, match="a data worker was ended by SIGKILL, as the system does when memory runs out"):
        list(in_workers(partial(_signalled, signal.SIGKILL), range(4), workers=2))


def test_a_worker_that_hangs_ends_with_its_asker() -> None:
    made = in_workers(_hang, range(4), workers=1)
    assert next(made) == 0
    (worker,) = multiprocessing.active_children()
    made.close()
    worker.join(timeout=60)
    assert worker.exitcode is not None


def test_a_worker_whose_asker_is_gone_before_it_has_started_ends() -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    code = f"from siglip.data.workers import _start_worker; _start_worker({int(gone.stdout)}, 0); print('lives')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    code = code.replace(gone.stdout.decode().strip(), "os.getppid()").replace("from", "import os; from", 1)
    lives = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert lives.stdout == "lives\n"
