import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest

from siglip.search import Library
from siglip.search.vectors import enough_rescored
from tests.conftest import ROOT
from tests.search.conftest import draw, in_child

NAMES = re.compile(r"(catalogue\.db|thumbs\.db)(-wal|-shm)?|lock|codes-1-\d+\.tv|vectors-1(-2)?\.f16")


def test_after_kills_at_random_moments_the_library_is_that_of_an_uninterrupted_run(tmp_path: Path):
    """Ten here; `python -m tests.search.kills 100 FOLDER` for more."""
    command = [sys.executable, "-m", "tests.search.kills", "10", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["equal"]
    assert told["kills"] >= 3
    assert told["embedded"] <= told["pictures"] + told["batch"] * told["kills"]
    assert all(map(NAMES.fullmatch, told["files"]))


def kill_before(number: int, folder: Path) -> None:
    """Kill this process before that SQL statement, or opening, renaming or removing of a file below the folder."""
    moments = iter(range(1, number))
    connect = sqlite3.connect

    def step() -> None:
        if threading.current_thread() is threading.main_thread() and next(moments, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*arguments, **options)
        db.set_trace_callback(lambda _: step())
        return db

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.remove", "os.truncate") and str(folder) in str(arguments[0]):
            step()

    sqlite3.connect = connected
    sys.addaudithook(heard)


def was_killed(action: Callable[[], object], folder: Path, number: int) -> bool:
    """Whether it was, in a child; not if it comes to its end first."""
    code = in_child(lambda: (kill_before(number, folder), action()))
    assert code in (0, -signal.SIGKILL)
    return code != 0


def contents(library: Library) -> list[tuple[str, tuple[str, ...], float]]:
    assert library.check() == ([], [])
    return sorted((hit.digest, hit.paths, round(hit.score, 4)) for hit in library.search("blocks", top=50))


@pytest.mark.parametrize("stage", ["a new library", "much added and much forgotten"])
def test_a_kill_before_any_statement_or_change_of_a_file_is_made_up_for_by_the_next_run(
    stage: str, photos: Path, make: Callable[..., Library], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("siglip.search.library.measure_absence", lambda *_: None)
    monkeypatch.setattr("siglip.search.vectors.FEW_ROWS", 3)
    for module in ("vectors", "upkeep", "searching"):  # so that codes are made too
        monkeypatch.setattr(f"siglip.search.{module}.EXACT_ROWS", 3)
    before = tmp_path / "before"
    if stage != "a new library":
        with make("before") as library:
            library.index([photos])
        shutil.rmtree(photos / "a")
        for seed in range(100, 106):
            draw(photos / "new" / f"{seed}.png", seed)

    def index(name: str) -> None:
        with make(name) as library:
            library.index([photos], prune=True)

    def fresh(name: str) -> str:
        if before.exists():
            shutil.copytree(before, tmp_path / name)
        return name

    index(fresh("whole"))
    with make("whole") as library:
        right = contents(library)
    for number in chain(range(1, 8), count(8, 20)):  # all moments took no other way
        name = fresh(f"killed {number}")
        if not was_killed(lambda name=name: index(name), tmp_path, number):
            break
        index(name)
        with make(name) as library:
            assert contents(library) == right, number
            assert all(NAMES.fullmatch(path.name) for path in library.folder.iterdir())
        shutil.rmtree(tmp_path / name)
    assert number > 60


def test_what_killed_runs_left_behind_is_removed_by_the_next_one(
    photos: Path, make: Callable[..., Library], monkeypatch: pytest.MonkeyPatch
):
    """The vector engine writes to a temporary name beside ours."""
    monkeypatch.setattr("siglip.search.library.measure_absence", lambda *_: None)
    with make() as library:
        library.index([photos])
        for name in (".codes-1-12.tv.1bqle2tl.tmp.tmp.24537.0.73fd6087", ".catalogue.db.zs609131.tmp", "codes-1-9.tv"):
            (library.folder / name).touch()
        library.index()
        assert all(NAMES.fullmatch(path.name) for path in library.folder.iterdir())
        assert not [*library.folder.glob("codes*")]


def test_while_codes_are_made_anew_readers_use_the_old_ones(
    photos: Path, make: Callable[..., Library], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("siglip.search.library.measure_absence", lambda *_: None)
    monkeypatch.setattr("siglip.search.vectors.FEW_ROWS", 3)
    for module in ("vectors", "upkeep", "searching"):
        monkeypatch.setattr(f"siglip.search.{module}.EXACT_ROWS", 3)
    with make() as library:
        library.index([photos])
    for seed in range(100, 106):
        draw(photos / "new" / f"{seed}.png", seed)
    read: list[tuple[int, list[str]]] = []

    def measured(*arguments: Any) -> Any:
        with make() as reader:
            reader.search("blocks")
            read.append((len(reader.vectors) - reader.vectors.uncoded, reader.notes))
        return enough_rescored(*arguments)

    monkeypatch.setattr("siglip.search.upkeep.enough_rescored", measured)
    with make() as library:
        library.index()
        assert read == [(12, [])]
        assert library.vectors.uncoded == 0
        assert [path.name for path in library.folder.glob("codes*")] == ["codes-1-18.tv"]
