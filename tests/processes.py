"""Runs a function of a test file in several processes that know each other as those of torchrun do."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT

# torch is imported once, with what DistributedDataParallel imports when it is made, and forked before it has started a
# thread; and os._exit, because tearing down a forked interpreter is slow too: each start and end costs seconds
LAUNCH = """
import faulthandler, os, signal, sys, traceback, torch, torch._dynamo
from {module} import {name} as function
torch.set_num_threads(1)
count, folder = int(sys.argv[1]), sys.argv[2]
children = []
for rank in range(count):
    children.append(os.fork())
    if children[-1] == 0:
        faulthandler.dump_traceback_later(240, exit=True)  # nobody waits for ever for one that failed
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count))
        try:
            torch.save(function(), f"{{folder}}/{{rank}}.pt")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
while children:
    child, status = os.wait()
    children.remove(child)
    if status:
        for other in children:
            os.kill(other, signal.SIGKILL)
        os._exit(1)
os._exit(0)
"""


def run_processes(function: Callable[[], Any], count: int, folder: Path) -> list[Any]:
    """What `function` (of the top level of its file) returns in each of `count` processes, in the order of ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = LAUNCH.format(module=function.__module__, name=function.__name__)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(count), str(folder)]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, **shared}, timeout=250, capture_output=True, text=True)
    if run.returncode:
        pytest.fail(run.stderr)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]
