"""Shard path or URL -> a plain tar on this machine and the positions of its samples, both kept in a cache folder.

A local .tar is read where it lies. A .tar.gz is unpacked into the cache once (and takes its unpacked size there), since
the middle of a gzip file cannot be reached without its beginning. A remote shard is fetched whole when first needed;
the longest unused ones make room. Delete the cache folder when remote shards change under the same name.
"""

import gzip
import os
import shutil
import tarfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from siglip.data.source import digest
from siglip.errors import DataError, DownloadError, clip
from siglip.files import cache_folder, replacing
from siglip.pictures import IMAGE_SUFFIXES

# what of a sample is read, and the suffixes it is told by
PARTS = ("image", "txt", "json", "cls")
_TRIES = 3
# changes with what an index says, so that one kept by an older version is not used
_INDEX = "2"
# of HEIC the picture says itself what it needs to be read
_IMAGES = IMAGE_SUFFIXES | {".heic", ".heif", ".hif"}

# where a member begins in the plain tar, and its size
Span = tuple[int, int]


def is_remote(url: str) -> bool:
    """Whether fsspec must fetch it."""
    return "://" in url


class ShardStore:
    """Ranges of shards, by URL. It keeps no file open, so it may be forked, pickled and used by threads.

    `fetched_bytes` bounds what remote shards take on disk. Keep it well above a window of shards (see `epoch_order`),
    or shards are fetched more than once.
    """

    def __init__(self, folder: Path | None = None, *, fetched_bytes: int = 50 * 10**9) -> None:
        self.folder = folder if folder is not None else cache_folder("shards")
        self._fetched_bytes = fetched_bytes
        self._places: dict[str, Path] = {}

    def read(self, url: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The (start, size) `spans` of the plain tar.

        Raises DataError if it ends before one of them, DownloadError if it cannot be fetched.
        """
        while True:
            try:
                with self._place(url).open("rb", buffering=0) as file:
                    found: list[bytes] = []
                    for start, size in spans:
                        file.seek(start)
                        found.append(file.read(size))
                    if is_remote(url):
                        os.utime(file.fileno())  # the last that would be removed now
                break
            except FileNotFoundError:
                # not here yet, or removed by another process to make room
                self.local(url)
        if any(len(data) < size for data, (_, size) in zip(found, spans, strict=True)):
            raise DataError(f"{url} is shorter than its index says; it was cut or replaced, get a fresh copy")
        return found

    def index(self, url: str) -> np.ndarray:
        """One row a sample: "key", and in "spans" (start, size) of each of PARTS in the plain tar, (-1, -1) if absent.

        Made once, about 40 microseconds a member; later mapped from the cache folder.
        """
        path = self.folder / f"{_identity(url)}-{_INDEX}.npy"
        if not path.exists():
            rows = index_tar(self.local(url), url)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, rows)
        return np.asarray(np.load(path, mmap_mode="r"))

    def local(self, url: str) -> Path:
        """A plain tar with the shard's content, fetched or unpacked now if there is none yet."""
        place = self._place(url)
        if place.exists():
            return place
        if _is_plain(url):
            raise DataError(f"{url} has been removed since the data were opened; put it back, or open the data again")
        import fcntl  # there is none on Windows, where only this is missing

        place.parent.mkdir(parents=True, exist_ok=True)
        with place.with_suffix(".lock").open("w") as lock:
            # one process at a time; the system ends the lock with the process, however that ends
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                _bring(url, place)
                if is_remote(url):
                    _make_room(place, self._fetched_bytes)
        return place

    def _place(self, url: str) -> Path:
        if url not in self._places:
            cached = self.folder / ("fetched" if is_remote(url) else "unpacked") / f"{_identity(url)}.tar"
            self._places[url] = Path(url) if _is_plain(url) else cached
        return self._places[url]


def index_tar(path: Path, url: str) -> np.ndarray:
    """Where the samples of a plain tar lie; see ShardStore.index. Raises DataError naming `url` if it is damaged."""
    members: dict[str, Span] = {}
    end = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.name in members:
                    raise DataError(f"{url} holds {member.name} twice; names of members must differ")
                end = member.offset_data + (member.size + 511) // 512 * 512
                if member.isreg():
                    members[member.name] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{url} is not a complete tar archive ({error}); get a fresh copy") from error
    if path.stat().st_size < end + 512:
        raise DataError(f"{url} has no end mark after byte {end}; it was cut there, get a fresh copy")
    return _rows(members, url)


def _rows(members: Mapping[str, Span], url: str) -> np.ndarray:
    groups: dict[str, dict[str, dict[str, Span]]] = {}
    for name, span in members.items():
        folder, _, file = name.removeprefix("./").rpartition("/")
        stem, dot, suffix = file.rpartition(".") if "." in file else (file, "", "")
        key = file.partition(".")[0]
        if not key:
            continue
        place = f"{folder}/".lstrip("/")
        parts = groups.setdefault(place + key, {}).setdefault(place + stem, {})
        part = "image" if dot + suffix.lower() in _IMAGES else suffix.lower()
        if part in parts and part in PARTS:
            raise DataError(
                f"{url} holds two members for the {'picture' if part == 'image' else part} of {clip(stem)}, the second "
                f"is {clip(name)}; leave one, or give it a name with a second dot, such as {clip(stem)}.mask.png"
            )
        parts[part] = span
    samples = {name: parts for key, stems in groups.items() for name, parts in _told_apart(key, stems, url).items()}
    keys = [name.encode("utf-8", "surrogateescape") for name in samples]
    width = max(map(len, keys), default=1)
    spans = ([parts.get(part, (-1, -1)) for part in PARTS] for parts in samples.values())
    return np.array(list(zip(keys, spans, strict=True)), [("key", f"S{width}"), ("spans", "<i8", (len(PARTS), 2))])


def _told_apart(key: str, stems: Mapping[str, dict[str, Span]], url: str) -> dict[str, dict[str, Span]]:
    """The samples among members that share their name up to the first dot, by the name of each up to its last dot.

    One of them has the plain name, or a picture and what is said of it: that is the sample, and the others, such as a
    mask or another wording, are passed over. Several have both: these are samples whose names have dots.
    """
    if len(stems) == 1:
        return {key: next(iter(stems.values()))}
    whole = [stem for stem, parts in stems.items() if "image" in parts and len(parts.keys() & set(PARTS)) > 1]
    if len(whole) > 1 and key not in whole:
        return dict(stems)
    if whole == [key]:
        return {key: stems[key]}
    is_clear = not whole or (len(whole) == 1 and "image" not in stems.get(key, {}))
    chosen: dict[str, Span] = {}
    for part in PARTS:
        having = [stem for stem, parts in stems.items() if part in parts]
        best = [stem for stem in (*whole, key) if stem in having] or having
        if not is_clear or (len(best) > 1 and best[0] not in (*whole, key)):
            listed = ", ".join(f"{stem}.{suffix}" for stem, parts in stems.items() for suffix in parts)
            raise DataError(
                f"{url}: it cannot be told which picture and caption of {clip(key)} belong together, there are "
                f"{clip(listed, 200)}; give each sample a name of its own without dots"
            )
        if best:
            chosen[part] = stems[best[0]][part]
    return {key: chosen}


def _identity(url: str) -> str:
    """A file name for what belongs to a shard: another one when a local shard is replaced."""
    if is_remote(url):
        return digest([url])[:24]
    path = Path(url)
    if not path.exists():
        raise DataError(f"shard {url} does not exist; check its name")
    return digest([str(path.resolve()), str(path.stat().st_size), str(path.stat().st_mtime_ns)])[:24]


def _is_gzip(url: str) -> bool:
    return url.endswith((".gz", ".tgz"))


def _is_plain(url: str) -> bool:
    return not is_remote(url) and not _is_gzip(url)


def _make_room(kept: Path, limit_bytes: int) -> None:
    """Remove the longest unused shards beside `kept` until all together fit."""
    found: list[tuple[int, int, Path]] = []
    for path in kept.parent.glob("*.tar"):
        with suppress(FileNotFoundError):  # another process makes room too
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    excess = sum(size for _, size, _ in found) - limit_bytes
    for _, size, path in sorted(found):
        if excess > 0 and path != kept:
            path.unlink(missing_ok=True)
            excess -= size


def _bring(url: str, target: Path) -> None:
    for attempt in range(_TRIES):
        try:
            with _opened(url) as source, replacing(target) as temporary, temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, 2**20)
            return
        except (gzip.BadGzipFile, EOFError) as error:
            raise DataError(f"{url} is not a complete gzip file ({error}); get a fresh copy") from error
        except Exception as error:  # every remote file system has exceptions of its own
            if not is_remote(url) or isinstance(error, DataError):
                raise
            if attempt == _TRIES - 1 or isinstance(error, FileNotFoundError | PermissionError):
                raise DownloadError(f"{url} could not be fetched ({type(error).__name__}: {error})") from error
            time.sleep(4**attempt)


@contextmanager
def _opened(url: str) -> Generator[IO[bytes], None, None]:
    with _remote_open(url) if is_remote(url) else Path(url).open("rb") as raw:
        if _is_gzip(url):
            with gzip.open(raw) as unpacked:
                yield cast(IO[bytes], unpacked)
        else:
            yield raw


def remote_read(url: str) -> bytes | None:
    """A small remote file, None if there is none. Raises DataError without fsspec or its driver, DownloadError."""
    try:
        with _remote_open(url) as file:
            return file.read()
    except (FileNotFoundError, PermissionError):  # S3 says the second where listing is not allowed
        return None
    except DataError:
        raise
    except Exception as error:
        raise DownloadError(f"{url} could not be fetched ({type(error).__name__}: {error})") from error


def remote_glob(pattern: str) -> list[str]:
    """Remote files that match, in order; the same errors."""
    try:
        import fsspec

        system, path = fsspec.url_to_fs(pattern)
        return sorted(system.unstrip_protocol(name) for name in system.glob(path))
    except (ImportError, ValueError) as error:
        raise _no_driver(pattern, error) from error
    except Exception as error:
        raise DownloadError(f"{pattern} could not be listed ({type(error).__name__}: {error})") from error


def _remote_open(url: str) -> Any:
    try:
        import fsspec

        return fsspec.open(url, "rb")
    except (ImportError, ValueError) as error:
        raise _no_driver(url, error) from error


def _no_driver(url: str, error: Exception) -> DataError:
    return DataError(f"{url} cannot be opened: {error}; pip install 'siglip[remote]'")
