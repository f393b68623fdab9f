"""One door for every kind of data: what is found decides which source it becomes."""

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from siglip.data.shards import MANIFEST, Shard, ShardSource
from siglip.data.source import Source
from siglip.data.store import ShardStore, is_remote, remote_glob, remote_read
from siglip.data.tables import TABLE_READERS, Columns, TableSource, load_dataset_folder, open_dataset, open_table
from siglip.errors import DataError
from siglip.pictures import IMAGE_SUFFIXES

TEMPLATES = ("a photo of {}.",)
_REMOTE_WINDOW = 16
_SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_EXPECTED = (
    "expected shards (.tar, .tar.gz), a table (.csv, .tsv, .jsonl, .parquet), a folder of pictures with captions "
    "beside them (a.jpg and a.txt), or a folder with one folder of pictures for each class"
)


def open_source(
    spec: object,
    *,
    columns: Columns | None = None,
    templates: Sequence[str] = TEMPLATES,
    window: int | None = None,
    store: ShardStore | None = None,
    label_names: Sequence[str] = (),
) -> Source:
    """The samples behind `spec`, decided by what is found.

    - Shards: a file, a folder of them, or a pattern such as `data/train-{000000..000021}.tar` or `data/*.tar.gz`; also
      remote ones (`s3://`, `gs://`, `https://` and what else fsspec knows). https cannot list files: there a folder
      needs the `shards.json` that `pack` writes.
    - A .csv, .tsv, .jsonl or .parquet file, or a folder with metadata.csv or metadata.jsonl; picture paths count from
      its folder, and `columns` names its columns where they cannot be told.
    - A folder of pictures with captions beside them (a.jpg and a.txt), else with one folder for each class.
    - A `datasets.Dataset`, or the folder that its `save_to_disk` wrote.

    Where there are classes and no captions, the class name put into each of `templates` is the caption; `label_names`
    are the class names where the data have only numbers. `window` is how many shards to shuffle over at a time; by
    default all local ones, 16 remote ones. `store` is where unpacked and fetched shards are kept. Raises DataError
    saying what was found, and DownloadError.
    """
    for template in templates:
        if "{}" not in template:
            raise DataError(f"template {template!r} has no {{}} for the class name; write it like {TEMPLATES[0]!r}")
    columns, store = columns or Columns(), store or ShardStore()
    if hasattr(spec, "column_names") and hasattr(spec, "features"):
        return open_dataset(spec, columns, templates, label_names)
    if not isinstance(spec, str | Path):
        raise DataError(f"data are a path, a URL or a datasets.Dataset, got {type(spec).__name__}; {_EXPECTED}")
    path = Path(spec)
    if is_remote(str(spec)):
        shards, names = _remote_shards(str(spec))
        window = window or _REMOTE_WINDOW
        return ShardSource(shards, store, window=window, label_names=names or label_names, templates=templates)
    if shards := _local_shards(path):
        names = _class_names(Path(shards[0].url).parent)
        return ShardSource(shards, store, window=window, label_names=names or label_names, templates=templates)
    if path.is_dir():
        return _open_folder(path, columns, templates, label_names)
    if path.is_file() and path.suffix.lower() in TABLE_READERS:
        return open_table(path, columns, templates, label_names)
    raise DataError(f"{spec} is {'no data we know' if path.exists() else 'not there'}; {_EXPECTED}")


def expand_braces(pattern: str) -> list[str]:
    """`a{08..10}.tar` -> a08.tar, a09.tar, a10.tar; `{x,y}.tar` -> x.tar, y.tar; several in one pattern multiply."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    choices = match[1].split(",")
    if numbers is not None:
        width = len(numbers[1])
        choices = [f"{number:0{width}d}" for number in range(int(numbers[1]), int(numbers[2]) + 1)]
    tails = expand_braces(pattern[match.end() :])
    return [pattern[: match.start()] + choice + tail for choice in choices for tail in tails]


def _local_shards(path: Path) -> list[Shard]:
    """The shards that a path or pattern names, in order; none if it names something else."""
    listed: list[str] = []
    if path.is_dir():
        names = sorted(str(file) for file in path.iterdir() if _is_shard(file.name))
        listed = [str(path / shard["name"]) for shard in _local_manifest(path).get("shards", [])] if names else []
    elif path.exists():
        names = [str(path)] if _is_shard(path.name) else []
    else:
        parts = expand_braces(str(path))
        # Path.glob refuses absolute patterns
        names = [name for part in parts for name in sorted(glob.glob(part)) if _is_shard(name)]  # noqa: PTH207
        listed = [part for part in parts if _is_shard(part) and not glob.has_magic(part)]
    if missing := [name for name in listed if not Path(name).exists()]:
        raise DataError(f"{path}: {len(missing)} of {len(listed)} shards are missing, the first is {missing[0]}")
    return [Shard(url=name) for name in names]


def _class_names(folder: Path) -> list[str]:
    """Of numbered classes: from the manifest, or classnames.txt (one a line) in the folder or the one above."""
    listings = [path for path in (folder / "classnames.txt", folder.parent / "classnames.txt") if path.exists()]
    lines = listings[0].read_text(encoding="utf-8-sig").splitlines() if listings else []
    return _local_manifest(folder).get("label_names", lines)


def _remote_shards(url: str) -> tuple[list[Shard], list[str]]:
    """The shards behind a URL, a pattern of URLs or a remote folder, and the class names, if there is a manifest."""
    is_folder = not _is_shard(url)
    folder = url.rstrip("/") if is_folder else url.rpartition("/")[0]
    manifest = _parsed(remote_read(f"{folder}/{MANIFEST}"), f"{folder}/{MANIFEST}")
    counts = {f"{folder}/{shard['name']}": int(shard["samples"]) for shard in manifest.get("shards", [])}
    if is_folder:
        urls = list(counts) or [found for suffix in _SHARD_SUFFIXES for found in remote_glob(f"{folder}/*{suffix}")]
    else:
        parts = expand_braces(url)
        urls = [found for part in parts for found in (remote_glob(part) if glob.has_magic(part) else [part])]
    if not urls:
        raise DataError(f"{url} names no shards; write them out, such as {folder}/shard-{{000000..000009}}.tar")
    return [Shard(url=name, samples=counts.get(name)) for name in urls], manifest.get("label_names", [])


def _local_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    return _parsed(path.read_bytes() if path.exists() else None, str(path))


def _parsed(data: bytes | None, where: str) -> dict[str, Any]:
    try:
        manifest = json.loads(data) if data is not None else {}
        assert all(isinstance(shard["name"], str) and shard["samples"] >= 0 for shard in manifest.get("shards", []))
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise DataError(f"{where} is no list of shards as `siglip data pack` writes it; remove it") from error
    return manifest


def _open_folder(folder: Path, columns: Columns, templates: Sequence[str], label_names: Sequence[str]) -> Source:
    if (folder / "dataset_dict.json").exists():
        splits = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        raise DataError(f"{folder} holds the parts {', '.join(splits)}; open one of them, such as {folder / splits[0]}")
    if (folder / "state.json").exists() and (folder / "dataset_info.json").exists():
        return open_dataset(load_dataset_folder(folder), columns, templates, label_names)
    for suffix in TABLE_READERS:
        if (folder / f"metadata{suffix}").exists():
            return open_table(folder / f"metadata{suffix}", columns, templates, label_names)
    return _open_pictures(folder, templates)


def _open_pictures(folder: Path, templates: Sequence[str]) -> Source:
    """Captions beside the pictures, else one folder for each class, numbered in alphabetical order of their names."""
    files = sorted(_walk(folder))
    pictures = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    texts = {file for file in files if file.suffix == ".txt"}
    if any(picture.with_suffix(".txt") in texts for picture in pictures):
        rows = [{"image": file.as_posix(), "caption": folder / file.with_suffix(".txt")} for file in pictures]
        return TableSource(rows, Columns(image="image", caption="caption"), folder=folder)
    rows = [{"image": file.as_posix(), "label": file.parts[0]} for file in pictures if len(file.parts) > 1]
    if rows and len(rows) == len(pictures):
        names = sorted({row["label"] for row in rows})
        columns = Columns(image="image", label="label")
        return TableSource(rows, columns, folder=folder, label_names=names, templates=templates)
    kinds = Counter(file.suffix or "without suffix" for file in files)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "no files"
    loose = f", {len(pictures) - len(rows)} pictures outside of class folders and without captions" if pictures else ""
    raise DataError(f"{folder} holds {found}{loose}; {_EXPECTED}")


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name).relative_to(folder) for name in files if not name.startswith("."))


def _is_shard(name: str) -> bool:
    return name.endswith(_SHARD_SUFFIXES) and not name.rpartition("/")[2].startswith(".")
