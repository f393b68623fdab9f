"""One door for every kind of data: what is found decides which source it becomes."""

import glob
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siglip.data.readers import TABLE_SUFFIXES
from siglip.data.shards import MANIFEST, Shard, ShardSource
from siglip.data.source import Source, text_of
from siglip.data.store import ShardStore, is_remote, remote_glob, remote_read
from siglip.data.tables import Columns, TableSource, json_captions, load_dataset_folder, open_dataset, open_table
from siglip.errors import DataError, clip, warn
from siglip.pictures import IMAGE_SUFFIXES, PassedOver, walk

TEMPLATES = ("a photo of {}.",)
_REMOTE_WINDOW = 16
# folders with such names are parts of a data set, also with a year or a number behind
_PART_NAME = re.compile(
    r"(train|training|trainval|val|valid|validation|dev|eval|evaluation|test|testing|held[_-]?out|hold[_-]?out)[_-]?\d*",
    re.IGNORECASE,
)
_SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_EXPECTED = (
    "expected shards (.tar, .tar.gz), a table (.csv, .tsv, .jsonl, .json, .parquet), a folder of pictures with "
    "captions beside them (a.jpg and a.txt), or a folder with one folder of pictures for each class"
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
    - A .csv, .tsv, .jsonl, .json or .parquet file, or a folder with metadata.csv or metadata.jsonl; picture paths count
      from its folder, and `columns` names its columns where they cannot be told. `file.json#val` takes the rows whose
      column "split" is val, `#train+restval` those of two. Among .json files are COCO's captions, Karpathy's split, and
      VQAv2's questions with the file of answers beside them.
    - A folder of pictures with captions beside them (a.jpg and a.txt or a.json), else with one folder for each class.
    - A `datasets.Dataset`, or the folder that its `save_to_disk` wrote.

    A row of shards, tables and `datasets` may hold a "question" and "answers" in place of a caption.
    Where there are classes and no captions, the class name put into each of `templates` is the caption; `label_names`
    are the class names where the data have only numbers. `window` is how many shards to shuffle over at a time; by
    default all local ones, 16 remote ones. `store` is where unpacked and fetched shards are kept. Raises DataError
    saying what was found, and DownloadError.
    """
    for template in templates:
        if "{}" not in template:
            raise DataError(
                f"template {clip(repr(template))} has no {{}} for the class name; write it like {TEMPLATES[0]!r}"
            )
    columns, store = columns or Columns(), store or ShardStore()
    if hasattr(spec, "column_names") and hasattr(spec, "features"):
        return open_dataset(spec, columns, templates, label_names)
    if not isinstance(spec, str | Path):
        raise DataError(f"data are a path, a URL or a datasets.Dataset, got {type(spec).__name__}; {_EXPECTED}")
    table, part = _table(Path(spec))
    if table is not None:
        return open_table(table, columns, templates, label_names, part)
    if columns != Columns() and not (Path(spec) / "state.json").exists():
        raise DataError(f"{spec} is not a table, so it has no columns to name; leave out {columns}")
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
    raise DataError(f"{spec} is {'not a kind of data that can be read' if path.exists() else 'missing'}; {_EXPECTED}")


def _table(path: Path) -> tuple[Path | None, str | None]:
    """The table that a path names, itself or in a folder, and the part of it that is asked for after a #."""
    name, mark, part = path.name.rpartition("#")
    if mark and not path.exists():
        path = path.with_name(name)
    if path.is_dir():
        beside = {file.name.lower(): file for file in sorted(path.iterdir(), reverse=True)}
        tables = [beside[f"metadata{suffix}"] for suffix in TABLE_SUFFIXES if f"metadata{suffix}" in beside]
        # what `save_to_disk` and `pack` write comes first
        is_other = "state.json" in beside or any(_is_shard(file) for file in beside)
        return (tables[0] if tables and not is_other else None), (part if mark else None)
    is_table = path.is_file() and path.suffix.lower() in TABLE_SUFFIXES
    return (path if is_table else None), (part if mark else None)


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
    try:
        lines = text_of(listings[0].read_bytes()).splitlines() if listings else []
    except ValueError as error:
        raise DataError(f"{listings[0]} {error}") from error
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
        raise DataError(f"{where} is not a list of shards as `siglip data pack` writes it; remove it") from error
    return manifest


def _open_folder(folder: Path, columns: Columns, templates: Sequence[str], label_names: Sequence[str]) -> Source:
    """What `datasets` saved; else captions beside pictures, else one folder for each class, numbered by their names."""
    if (folder / "dataset_dict.json").exists():
        splits = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        raise DataError(f"{folder} holds the parts {', '.join(splits)}; open one of them, such as {folder / splits[0]}")
    if (folder / "state.json").exists() and (folder / "dataset_info.json").exists():
        return open_dataset(load_dataset_folder(folder), columns, templates, label_names)

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}; change its permissions or move it away")

    files, passed_over = sorted(file.relative_to(folder) for file in walk(folder, unreadable)), PassedOver()
    pictures = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    for file in files:
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            passed_over.add(folder / file)
    texts = _captions_beside(folder, files, pictures)
    rows = [{"image": file.as_posix(), "label": file.parts[0]} for file in pictures if len(file.parts) > 1]
    has_classes = bool(rows) and len(rows) == len(pictures)
    if texts or has_classes:
        _refuse_parts(folder, {file.parts[0] for file in pictures if len(file.parts) > 1}, has_captions=bool(texts))
        passed_over.warn(folder)
    if texts:
        _say_captions_alone(folder, files, pictures)
        captioned = [
            {"image": file.as_posix(), "caption": folder / texts.get(file.with_suffix(""), file.with_suffix(".txt"))}
            for file in pictures
        ]
        return TableSource(captioned, Columns(image="image", caption="caption"), folder=folder)
    if has_classes:
        _refuse_deeper_classes(folder, pictures)
        names = sorted({row["label"] for row in rows})
        by_class = Columns(image="image", label="label")
        return TableSource(rows, by_class, folder=folder, label_names=names, templates=templates)
    kinds = Counter(file.suffix or "without suffix" for file in files)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "no files"
    loose = f", {len(pictures) - len(rows)} pictures outside of class folders and without captions" if pictures else ""
    raise DataError(f"{folder} holds {found}{loose}; {_EXPECTED}")


def _captions_beside(folder: Path, files: Sequence[Path], pictures: Sequence[Path]) -> dict[Path, Path]:
    """Path of a picture without its suffix -> its caption file: .txt, else .json where these hold captions."""
    stems = {picture.with_suffix("") for picture in pictures}
    for suffix in (".txt", ".json"):
        beside = {
            file.with_suffix(""): file
            for file in files
            if file.suffix.lower() == suffix and file.with_suffix("") in stems
        }
        if beside and (suffix == ".txt" or _holds_captions(folder / next(iter(beside.values())))):
            return beside
    return {}


def _holds_captions(path: Path) -> bool:
    try:
        return json_captions(json.loads(text_of(path.read_bytes()))) is not None
    except (OSError, ValueError):
        return False


def _refuse_parts(folder: Path, names: set[str], *, has_captions: bool) -> None:
    """Raise DataError if the folders in `folder` are the parts of a data set and not its classes."""
    parts = sorted(name for name in names if _PART_NAME.fullmatch(name))
    if len(parts) > 1 or (parts and len(names) == 1 and not has_captions):
        what = "of a data set, which would be mixed" if has_captions else "of a data set, not classes"
        raise DataError(
            f"{folder} holds {', '.join(parts)}: parts {what}; give one of them, such as {folder / parts[0]}"
        )


def _is_shard(name: str) -> bool:
    return name.endswith(_SHARD_SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def _refuse_deeper_classes(folder: Path, pictures: Sequence[Path]) -> None:
    """Raise DataError where one folder holds all classes; warn where several hold folders of the same names."""
    inner: dict[str, set[str]] = {}
    for file in pictures:
        inner.setdefault(file.parts[0], set()).add(file.parts[1] if len(file.parts) > 2 else "")
    first, *others = sorted(inner)
    names = sorted(inner[first])
    if len(names) < 2 or "" in names:
        return
    shown = clip(", ".join(names))
    if not others:
        raise DataError(
            f"{folder} holds one folder, {first}, and in it {shown}: give {folder / first} for these classes"
        )
    if all(inner[other] == inner[first] for other in others):
        warn(
            f"{folder}: the classes are {clip(', '.join(sorted(inner)))}, each with the folders {shown}; if these are "
            f"the classes, give one of the folders, such as {folder / first}"
        )


def _say_captions_alone(folder: Path, files: Sequence[Path], pictures: Sequence[Path]) -> None:
    stems = {picture.with_suffix("") for picture in pictures}
    alone = [file for file in files if file.suffix.lower() == ".txt" and file.with_suffix("") not in stems]
    if alone:
        warn(f"{folder}: {len(alone)} .txt files have no picture of their name, such as {clip(str(alone[0]))}")
