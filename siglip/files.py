"""Writing files so that a crash at any moment leaves the previous state readable; what a word names."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_STAGING = ".siglip-staging"
_COMMITTED = ".siglip-committed"
_OBSOLETE = ".obsolete"
_TEMPORARY = re.compile(r"\..*\.tmp")


def existing(word: str | Path) -> Path | None:
    """The file or folder that a word names, or None, also where the word is a text that no name can be.

    What may not be looked at raises its OSError.
    """
    path = Path(word)
    try:
        return path if path.exists() else None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise


@contextmanager
def replacing(path: str | Path) -> Generator[Path, None, None]:
    """Yield a temporary path beside `path`; when the block ends well it is flushed to disk and takes its name.

    If the block raises, the temporary file is removed and `path` stays as it was. Parent folders are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with named_in_errors(target):
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            flush(temporary)
            temporary.replace(target)
            flush(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def named_in_errors(path: Path) -> Generator[None, None, None]:
    """Let an OSError that names no file, as that of a full disk, or a temporary one, name `path`."""
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename)).name if isinstance(error.filename, str | bytes) else None
        if error.errno is not None and (named is None or _TEMPORARY.fullmatch(named)):
            error.filename, error.filename2 = str(path), None
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing_together(folder: str | Path, *, obsolete: Sequence[str] = ()) -> Generator[Path, None, None]:
    """Yield an empty folder; when the block ends well its files move into `folder`, all of them or none.

    `obsolete` names files of `folder` that go at the same moment, unless they are written anew. The moment is one
    rename; whoever reads the folder calls `settle` first, which finishes what a crash right after it interrupted.
    If the block raises, `folder` stays as it was. One writer at a time.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    settle(target)
    staging = target / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        gone = [name for name in obsolete if not (staging / name).exists()]
        (staging / _OBSOLETE).write_text("\n".join(gone), encoding="utf-8")
        for file in staging.iterdir():
            file.chmod(0o666 & ~_umask())
            flush(file)
        flush(staging)
        staging.rename(target / _COMMITTED)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    settle(target)


def settle(folder: str | Path) -> None:
    """Finish a `replacing_together` that was interrupted after its moment; does nothing otherwise."""
    target = Path(folder)
    committed = target / _COMMITTED
    if not committed.is_dir():
        return
    flush(target)
    # several processes may do this at once; what another has done already is no error
    with suppress(FileNotFoundError):
        for name in (committed / _OBSOLETE).read_text(encoding="utf-8").splitlines():
            (target / name).unlink(missing_ok=True)
        for file in committed.iterdir():
            if file.name != _OBSOLETE:
                with suppress(FileNotFoundError):
                    file.replace(target / file.name)
        flush(target)
        shutil.rmtree(committed, ignore_errors=True)


def cache_folder(name: str) -> Path:
    """Where `name`, which can be made again at any time, is kept: in $SIGLIP_CACHE, else in the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("SIGLIP_CACHE") or user / "siglip") / name


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # the only way to read it is to set it
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def in_megabytes(count: int) -> str:
    """Bytes as people say them: "0.4 MB", "43 MB", "2.1 GB"."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"
