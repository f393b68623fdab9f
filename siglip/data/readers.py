"""The file of a table -> its rows: CSV and its kin, JSON in its many forms, Parquet."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from siglip.data.source import text_of
from siglip.errors import DataError, clip

Row = Mapping[str, Any]

# column names in use, the likelier first; case does not count
IMAGE_NAMES = (
    *("image", "image_path", "filepath", "file_path", "file_name", "filename", "image_name", "path", "file", "img"),
)
CAPTION_NAMES = ("captions", "caption", "text", "title", "txt", "sentences", "comment", "suffix")
LABEL_NAMES = ("label", "class", "labels", "fine_label")

_KNOWN = frozenset((*IMAGE_NAMES, *CAPTION_NAMES, *LABEL_NAMES))
_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
# a cell may hold a picture as text
_MAX_CELL = 2**27


class ArrowRows:
    """Rows of an Arrow table, made when they are asked for."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int, /) -> Row:
        return {name: self.table[name][index].as_py() for name in self.table.column_names}


def column_of(rows: list[Row] | ArrowRows, name: str | None) -> list[Any]:
    """The values of one column, None where a row lacks it; none at all for a column that is not there."""
    if isinstance(rows, ArrowRows):
        return rows.table[name].to_pylist() if name in rows.table.column_names else []
    return [row.get(name) for row in rows] if name is not None else []


def read_table(path: Path, part: str | None) -> list[Row] | ArrowRows:
    """The rows of a file whose suffix is in TABLE_SUFFIXES; with `part`, those whose column "split" says so."""
    rows = _READERS[path.suffix.lower()](path)
    splits = [str(value) for value in column_of(rows, "split") if value is not None]
    names = list(dict.fromkeys(splits))
    if part is None:
        if path.suffix.lower() == ".json" and len(names) > 1:
            raise DataError(f"{path} holds the parts {', '.join(names)}; open one of them, such as {path}#{names[0]}")
        return rows
    wanted = part.split("+")
    if missing := [name for name in wanted if name not in names]:
        there = f"has {', '.join(names)}" if names else "has no column 'split'"
        raise DataError(
            f"{path} has no part {clip(repr(missing[0]))}: it {there}; write {path.name}#PART with one of its parts"
        )
    return [rows[index] for index in range(len(rows)) if str(rows[index].get("split")) in wanted]


# ---- separated values


def _read_csv(path: Path) -> list[Row]:
    text = _text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = _separator(first, "\t" if path.suffix.lower() == ".tsv" else ",")
    where = f"{path} (cells separated by {_SEPARATORS[separator]})"
    usual_limit = csv.field_size_limit(_MAX_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        # the line in which each row ends, and its cells
        lines = [
            (reader.line_num, [cell.strip() for cell in cells] if separator == "|" else cells)
            for cells in reader
            if cells
        ]
    except csv.Error as error:
        raise DataError(f"{where} cannot be read as a table: {error}; close every quote that is opened") from error
    finally:
        csv.field_size_limit(usual_limit)
    names = [name.strip() for name in lines[0][1]] if lines else []
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where} has the column {clip(repr(twice[0]))} more than once; names of columns must differ")
    # empty cells at the end are what some spreadsheets write
    surplus = [(line, cells) for line, cells in lines if any(cell.strip() for cell in cells[len(names) :])]
    if surplus:
        line, cells = surplus[0]
        raise DataError(
            f"{where}: {len(surplus)} rows have more cells than the {len(names)} columns, the first in line {line}: "
            f"{clip(repr(cells))}; put texts that hold the separator into double quotes"
        )
    return [dict(zip(names, [*cells, *[None] * len(names)], strict=False)) for _, cells in lines[1:]]


def _separator(header: str, usual: str) -> str:
    """The separator that gives the most known names, then the most cells; the usual one if several do."""

    def fit(separator: str) -> tuple[int, int, bool]:
        cells = [cell.strip(' "') for cell in header.split(separator)]
        return sum(cell.lower() in _KNOWN for cell in cells), len(cells), separator == usual

    return max(_SEPARATORS, key=fit)


def _text(path: Path) -> str:
    try:
        return text_of(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} {error}") from error


# ---- JSON


def _read_jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError as error:
            raise DataError(f"{path} line {number} is not valid JSON: {error}; expected one object a line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number} is {clip(line, 40)!r}; expected an object with columns as keys")
        rows += [row] if row else []
    return rows


def _read_json(path: Path) -> list[Row]:
    """A list of objects, alone or under one key; captions by picture; COCO's captions; Karpathy's split of them; VQAv2.

    Of VQAv2 it is the file of questions, with that of answers beside it.
    """
    try:
        content: Any = json.loads(_text(path))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not valid JSON: {error}") from error
    if isinstance(content, dict):
        images = content.get("images")
        if _are_objects(content.get("questions")):
            return _vqa(path, content)
        if _are_objects(images) and "annotations" in content:
            return _coco(path, images, content["annotations"])
        if _are_objects(images) and all("sentences" in image for image in images):
            return _karpathy(path, images)
        lists = [value for value in content.values() if _are_objects(value)]
        if len(lists) == 1:
            content = lists[0]
        elif content and all(_is_caption(value) for value in content.values()):
            return [{"image": name, "captions": value} for name, value in content.items()]
    if not _are_objects(content):
        found = f"an object with {clip(', '.join(content))}" if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"{path} holds {found}; expected a list of objects with a picture and a caption each, captions by picture, "
            "or COCO's captions (images and annotations)"
        )
    return list(content)


def _coco(path: Path, images: list[dict[str, Any]], annotations: Any) -> list[Row]:
    captions: dict[Any, list[str]] = {image.get("id"): [] for image in images}
    if not _are_objects(annotations) or not all("caption" in item and "image_id" in item for item in annotations):
        raise DataError(f"{path} has annotations without captions; give the file whose name begins with captions_")
    if strangers := [item["image_id"] for item in annotations if item["image_id"] not in captions]:
        raise DataError(
            f"{path} has captions of {len(strangers)} pictures it does not list, the first is {strangers[0]}"
        )
    for item in annotations:
        captions[item["image_id"]].append(item["caption"])
    names = [str(image.get("file_name")) for image in images]
    place = _place(path, names, [path.stem.rpartition("_")[2]])
    return [
        {"image": f"{place}{name}", "captions": captions[image.get("id")], "image_id": image.get("id")}
        for name, image in zip(names, images, strict=True)
    ]


def _karpathy(path: Path, images: list[dict[str, Any]]) -> list[Row]:
    """The split of COCO and Flickr30k that most papers use: one file for the parts train, restval, val and test."""
    folders = [str(image.get("filepath", "")) for image in images]
    names = [f"{folder}/{image.get('filename')}".lstrip("/") for folder, image in zip(folders, images, strict=True)]
    place = _place(path, names, [])
    return [
        {
            "image": f"{place}{name}",
            "captions": [sentence.get("raw") for sentence in image["sentences"]],
            "split": image.get("split"),
        }
        for name, image in zip(names, images, strict=True)
    ]


def _vqa(path: Path, content: dict[str, Any]) -> list[Row]:
    """The questions of VQAv2 with the answers of the file beside it, and the picture names of COCO."""
    beside = path.with_name(path.name.replace("OpenEnded_", "").replace("questions", "annotations"))
    if beside == path or not beside.exists():
        raise DataError(f"{path} holds questions; the answers to them are expected beside it, in {beside.name}")
    answers = json.loads(_text(beside)).get("annotations")
    if not _are_objects(answers) or not all("question_id" in item for item in answers):
        raise DataError(
            f"{beside} has no annotations with a question_id each; get the file that belongs to {path.name}"
        )
    said = {item["question_id"]: item for item in answers}
    part = content.get("data_subtype", "")
    questions: list[dict[str, Any]] = content["questions"]
    names = [f"COCO_{part}_{item.get('image_id'):>012}.jpg" for item in questions]
    place = _place(path, names, [part])
    kept = ("question", "question_id", "image_id")
    return [
        {
            "image": f"{place}{name}",
            **{key: item.get(key) for key in kept},
            "answers": said.get(item.get("question_id"), {}).get("answers"),
            "answer_type": said.get(item.get("question_id"), {}).get("answer_type"),
        }
        for name, item in zip(names, questions, strict=True)
    ]


def _place(path: Path, names: Sequence[str], folders: Sequence[str]) -> str:
    """Where the pictures lie, as seen from the file: beside it, or in the folders that are customary."""
    inner = ["", "images/", *(f"{name}/" for name in folders), *(f"images/{name}/" for name in folders)]
    places = [f"{up}{place}" for up in ("", "../") for place in inner]
    for place in places:
        # the first few: one picture alone may be missing
        if any((path.parent / f"{place}{name}").exists() for name in names[:20]):
            return place
    raise DataError(
        f"{path} names pictures such as {clip(names[0] if names else 'none')}, which lie neither beside it nor in "
        f"{', '.join(place for place in places if place)}; move the file to the folder that their names count from"
    )


def _are_objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_caption(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


# ---- Parquet


def _read_parquet(path: Path) -> list[Row] | ArrowRows:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow to be read; pip install 'siglip[parquet]'") from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {error}") from error
    holds_pictures = any("binary" in str(kind) for kind in table.schema.types)
    return ArrowRows(table) if holds_pictures else table.to_pylist()


_READERS: Mapping[str, Callable[[Path], list[Row] | ArrowRows]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
TABLE_SUFFIXES = tuple(_READERS)
