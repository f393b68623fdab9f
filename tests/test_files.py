"""A crash at any moment of a write leaves the previous state or the new one, never a mixture."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from siglip.files import existing, replacing, replacing_together, settle, write_text

# every call that changes the disk is counted, and the process is killed at the one asked for
CRASH = """
import os, pathlib, signal, sys
left = int(sys.argv[2])

def dying(function):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return counted

for owner, names in ((os, ("rename", "replace", "unlink", "mkdir", "rmdir", "fsync", "listdir")),
                     (pathlib.Path, ("rename", "replace", "unlink", "mkdir", "rmdir", "write_text"))):
    for name in names:
        setattr(owner, name, dying(getattr(owner, name)))

from siglip.files import replacing_together
folder = pathlib.Path(sys.argv[1])
with replacing_together(folder, obsolete=["old", "kept"]) as staging:
    for name in ("both", "kept", "new"):
        with open(staging / name, "w") as file:
            file.write("after")
print("done")
"""
BEFORE = {"both": "before", "kept": "before", "old": "before", "other": "mine"}
AFTER = {"both": "after", "kept": "after", "new": "after", "other": "mine"}


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in BEFORE.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_replaced_together_are_all_old_or_all_new_wherever_the_process_is_killed(tmp_path: Path) -> None:
    states = []
    for step in range(100):
        folder = tmp_path / str(step)
        folder.mkdir()
        for name, text in BEFORE.items():
            (folder / name).write_text(text)
        run = subprocess.run([sys.executable, "-c", CRASH, str(folder), str(step)], capture_output=True, text=True)
        settle(folder)
        states.append(contents(folder))
        assert states[-1] in (BEFORE, AFTER), f"killed at step {step}"
        if run.stdout == "done\n":
            break
        assert run.returncode < 0, run.stderr
    # both states were seen, in that order, and the last run was not killed
    assert states[0] == BEFORE and states[-1] == AFTER
    assert states == sorted(states, key=AFTER.__eq__)


def test_a_save_after_a_kill_starts_afresh(folder: Path) -> None:
    for step in (0, 3, 6, 9):
        subprocess.run([sys.executable, "-c", CRASH, str(folder), str(step)], capture_output=True)
    with replacing_together(folder) as staging:
        (staging / "both").write_text("later")
    assert contents(folder)["both"] == "later"
    assert [file for file in folder.iterdir() if file.is_dir()] == []


def test_an_error_while_writing_leaves_all_files_as_they_were(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing_together(folder, obsolete=["old"]) as staging:
        (staging / "both").write_text("after")
        1 / 0  # noqa: B018
    assert contents(folder) == BEFORE
    assert [file for file in folder.iterdir() if file.is_dir()] == []


def test_an_error_while_writing_one_file_leaves_it_as_it_was(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(folder / "both") as temporary:
        temporary.write_text("after")
        1 / 0  # noqa: B018
    assert contents(folder) == BEFORE


def test_an_error_names_the_file_that_was_to_be_written_and_no_temporary_one(folder: Path) -> None:
    (folder / "taken").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_text(folder / "taken", "text")
    assert error.value.filename == str(folder / "taken")
    for named, told in ((None, "both"), (str(folder / "other"), "other")):
        with pytest.raises(OSError, match="No space left") as full, replacing(folder / "both"):
            raise OSError(errno.ENOSPC, "No space left on device", named)
        assert full.value.filename == str(folder / told)


def test_files_are_readable_as_any_other_file_is(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_text(tmp_path / "one", "text")
    with replacing_together(tmp_path) as staging:
        (staging / "together").write_text("text")
    usual = (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "one").stat().st_mode == (tmp_path / "together").stat().st_mode == usual


def test_parent_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "file", "text")
    with replacing_together(tmp_path / "c" / "d") as staging:
        (staging / "file").write_text("text")
    assert (tmp_path / "a" / "b" / "file").read_text() == (tmp_path / "c" / "d" / "file").read_text() == "text"


def test_a_text_too_long_for_a_name_names_no_file(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    assert existing(tmp_path / "here") == tmp_path / "here"
    assert existing(tmp_path / "there") is None
    # parts of a path may have 255 bytes, and the whole 4,096
    assert existing("a photo of {} " * 30) is None
    assert existing("a/" * 3000) is None
