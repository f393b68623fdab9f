"""Work done by other processes, in order, and the count of the samples it failed on."""

import io
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from siglip.errors import DataError, Failure, SiglipError

# what people and job managers stop a run with, and send to every process of it
_STOPS = {signal.SIGINT, signal.SIGTERM}

# visits before which the share of broken samples is not judged
_TOO_FEW = 1000

Key = TypeVar("Key")
Made = TypeVar("Made")


def in_workers(
    make: Callable[[Key], Made], keys: Iterable[Key], workers: int, *, pinned: bool = False
) -> Generator[Made, None, None]:
    """`make(key)` for every key, in order, by `workers` processes that run ahead (0: made here, when asked for).

    `make` must be picklable where the system does not fork. `pinned`: what is made has a method `pin_memory` to call.
    Errors of this package arrive as they were raised. A stop signal that reaches the workers too costs no result: they
    end when this process says so, or is gone. Raises DataError if the system ends one, as it does where memory runs
    out. Results come through pipes, not through /dev/shm: containers make that so small (Docker: 64 MB) that a batch of
    pictures does not fit, and what does not fit would never come.
    """
    loader = DataLoader(
        _Work(make, packed=workers > 0),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=partial(_start_worker, os.getpid()),
        pin_memory=pinned,
        # its own, or making an iterator would draw from the generator that a resumed run has just restored
        generator=torch.Generator(),
    )
    with _stops_held_back():
        iterator = iter(loader)
    processes: Sequence[Any] = getattr(iterator, "_workers", ())
    try:
        yield from _opened(iterator)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        codes = [process.exitcode for process in processes if process.exitcode]
        by = f" by {_named(codes[0])}" if codes else ""
        raise DataError(
            f"a data worker was ended{by}, as the system does when memory runs out; use fewer workers, smaller "
            "batches, or a machine with more memory"
        ) from error
    finally:
        if processes:
            iterator._shutdown_workers()  # pyright: ignore
        for process in processes:
            process.kill()  # one that hangs where nothing else ends it


def _opened(made: Iterable[Any]) -> Iterator[Any]:
    for item in made:
        result = item.open() if isinstance(item, _Parcel) else item
        if isinstance(result, SiglipError):
            raise result
        yield result


@contextmanager
def _stops_held_back() -> Generator[None, None, None]:
    """Where workers start: a stop signal waits, and they never get one in Python's or the system's way."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    told = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGCHLD) is not told:
            # DataLoader's would raise anywhere in our code, also half way through an update; it looks itself, too
            signal.signal(signal.SIGCHLD, told)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _named(exit_code: int) -> str:
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"exit code {exit_code}"


class BrokenLedger:
    """Counts visits and broken samples, lists the latter, also in a file, and tells when they are too many."""

    def __init__(self, log: Path | None, max_share: float, samples: int) -> None:
        self._log, self._max_share = log, max_share
        self._judged_from = min(samples, _TOO_FEW)
        self._visits = 0
        self._met = 0
        self._listed: dict[str, Failure] = {}

    @property
    def broken(self) -> tuple[Failure, ...]:
        """The broken samples met so far."""
        return tuple(self._listed.values())

    def add(self, visits: int, broken: Sequence[Failure]) -> None:
        """Count; `broken` are among the visits. Raises DataError if their share has become too large."""
        self._visits += visits
        self._met += len(broken)
        fresh = {item.name: item for item in broken if item.name not in self._listed}
        self._listed |= fresh
        if self._log is not None and fresh:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as file:
                file.writelines(f"{item.name}\t{item.reason}\n" for item in fresh.values())
        self._judge()

    def add_all(self, shares: Sequence["BrokenLedger"]) -> None:
        """Count what other ledgers counted, one a process. Raises DataError if the share of all is too large."""
        for share in shares:
            self._visits += share._visits
            self._met += share._met
            self._listed |= share._listed
        self._judge()

    def _judge(self) -> None:
        if self._met > self._max_share * max(self._visits, self._judged_from):
            last = next(reversed(self._listed.values()))
            raise DataError(
                f"{self._met} of {self._visits} samples are broken, more than the share max_broken={self._max_share}; "
                f"the last is {last.name}: {last.reason}; `siglip data stats` lists them all"
            )


class _Work(Dataset["Made | SiglipError | _Parcel"], Generic[Key, Made]):
    """Calls `make`. An exception that crosses processes would become another one, with a traceback for a message."""

    def __init__(self, make: Callable[[Key], Made], *, packed: bool) -> None:
        self._make, self._packed = make, packed

    def __getitem__(self, index: Key) -> "Made | SiglipError | _Parcel":
        try:
            made = self._make(index)
        except SiglipError as error:
            made = error
        return _Parcel(made) if self._packed else made


class _Parcel:
    """Something on its way between processes, as bytes. DataLoader would put the tensors in it into /dev/shm."""

    def __init__(self, made: Any) -> None:
        stream = io.BytesIO()
        _Packer(stream, protocol=5).dump(made)
        self._bytes = stream.getvalue()

    def open(self) -> Any:
        """What was packed."""
        return pickle.loads(self._bytes)

    def pin_memory(self) -> Any:
        """What was packed, in page-locked memory; DataLoader calls it in a thread."""
        made = self.open()
        return made if isinstance(made, SiglipError) else made.pin_memory()


class _Packer(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return (torch.from_numpy, (obj.numpy(),)) if isinstance(obj, Tensor) else NotImplemented


def _start_worker(asker: int, _: int) -> None:
    # Ctrl-C and a stop signal to the whole group are for the process that asked, which ends us when it is ready
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_heed, args=(asker,), daemon=True).start()
    # killed while we started: the watchdog of DataLoader, which looks for the asker from now on, would miss that
    if os.getppid() != asker and multiprocessing.get_start_method(allow_none=True) != "forkserver":
        os._exit(1)
    # tokenizers would warn of the fork, and its threads would only compete with the other workers
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _heed(asker: int) -> None:
    """End when the process that asked says so. Others send their signal to it, too, and it still wants our results."""
    while signal.sigwaitinfo(_STOPS).si_pid != asker:
        pass
    os._exit(0)


def _unchanged(made: Made) -> Made:
    return made
