"""`siglip WORDS...` in processes forked from one that has imported torch, which is most of what a command costs."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.command", "siglip.cli.main", "siglip.embedder", "siglip.processing", "pytest"])


def start(
    words: Sequence[str], folder: Path, streams: tuple[int, int, int], environment: Mapping[str, str]
) -> ForkServerProcess:
    """Start it in a folder, with descriptors for its stdin, stdout and stderr; `.exitcode` is there after `.join()`."""
    process = _CONTEXT.Process(target=_run, args=(list(words), str(folder), dict(environment), _Streams(streams)))
    process.start()
    return process


class _Streams:
    """Descriptors, which are passed on only while the process is started."""

    def __init__(self, numbers: tuple[int, int, int]) -> None:
        self.numbers = numbers

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, tuple(DupFd(number) for number in self.numbers)


def _received(*streams: Any) -> list[int]:
    return [stream.detach() for stream in streams]


def _run(words: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        open(0, closefd=False),  # noqa: SIM115
        open(1, "w", closefd=False),  # noqa: SIM115
        open(2, "w", buffering=1, errors="backslashreplace", closefd=False),  # noqa: SIM115
    )
    sys.argv = ["siglip", *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from siglip.cli.main import main

    sys.exit(main())
