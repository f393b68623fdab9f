"""Rows -> samples: tables, Hugging Face `datasets`, and whatever else is a sequence of mappings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from siglip.data.order import Order, epoch_order
from siglip.data.readers import CAPTION_NAMES, IMAGE_NAMES, LABEL_NAMES, ArrowRows, Row, column_of, read_table
from siglip.data.source import Sample, as_prompt, digest, text_of, usable_captions
from siglip.download import data_uri_bytes, download, is_data_uri
from siglip.errors import BrokenSample, DataError, DownloadError, clip, warn
from siglip.fields import checked


@runtime_checkable
class Rows(Protocol):
    """A list of rows, or what only looks like one, such as a `datasets.Dataset`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Row: ...


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which columns hold the picture, the caption (a text or a list of them) and the class; None: decided by name.

    With `fetch`, pictures named by web addresses are downloaded, each time they are asked for.
    """

    image: str | None = None
    caption: str | None = None
    label: str | None = None
    fetch: bool = False

    def found_in(self, names: Sequence[str], where: str) -> "Columns":
        """The same with every None decided; raises DataError without a picture, or with no caption, answer or class."""
        for given in (self.image, self.caption, self.label):
            if given is not None and given not in names:
                raise DataError(f"{where} has no column {clip(repr(given))}, only {', '.join(names)}")
        image = self.image or _first(IMAGE_NAMES, names)
        caption = self.caption or _first(CAPTION_NAMES, names)
        label = self.label or _first(LABEL_NAMES, names)
        asks = "question" in names and ("answers" in names or "answer" in names)
        if image is None or (caption is None and label is None and not asks):
            raise DataError(
                f"{where} has the columns {', '.join(names)}; expected one with pictures (such as 'image') and one "
                "with captions or classes (such as 'caption', 'label'), or 'question' and 'answers'; name yours: "
                "--column image=NAME on the command line, --set data.columns.image=NAME for a recipe, "
                "columns=Columns(image=...) in Python"
            )
        return replace(self, image=image, caption=caption, label=label)


class TableSource:
    """Rows as samples; a row is read when its sample is asked for.

    A picture is a path (relative ones count from `folder`), a web address if `columns.fetch`, encoded bytes, a mapping
    with "bytes" and "path", or a PIL image. A caption is a text, a list of texts, or the Path of a text file; without a
    caption column it is the class name put into each of `templates`. `state` stands for the content in the fingerprint
    where there are no files to look at.
    """

    def __init__(
        self,
        rows: Rows,
        columns: Columns,
        *,
        folder: Path,
        label_names: Sequence[str] = (),
        templates: Sequence[str] = (),
        state: str | None = None,
    ) -> None:
        self._rows, self._columns, self._folder = rows, columns, folder
        self._templates, self._state = templates, state
        self.label_names = tuple(label_names)
        self._label_of = {name: index for index, name in enumerate(self.label_names)}

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int, *, image: bool = True) -> Sample:
        """The sample of row `index`. Raises BrokenSample if it has no picture or no caption."""
        row, columns = self._rows[index], self._columns
        row, answers = as_prompt(row, row.get(columns.caption or ""))
        picture = row.get(columns.image or "")
        name = f"row-{index:08d}"
        if isinstance(picture, str) and picture and not is_data_uri(picture):
            name = picture
        label, concept = row.get(columns.label or ""), row.get("concept")
        if isinstance(label, str):
            label = self._label_of.get(label, -1)
        elif not isinstance(label, int):
            label = -1
        used = (columns.image, columns.caption, columns.label)
        return Sample(
            name=name,
            image=self._image(picture, name) if image else None,
            captions=usable_captions(name, self._captions(row, name, label) if answers is None else answers, row),
            label=label,
            concept=concept if isinstance(concept, str) else None,
            facts={
                key: row[key]
                for key in row
                if key not in used and (isinstance(row[key], str | int | float) or key == "answers")
            },
        )

    def order(self, seed: int, epoch: int) -> Order:
        """Every order is equally likely."""
        return epoch_order([len(self)], seed=seed, epoch=epoch)

    def prepare(self, indices: Sequence[int]) -> None:
        """Rows are at hand."""

    def fingerprint(self) -> str:
        """Over `state` and count, or over the names and sizes of all picture files in their order."""
        if self._state is not None:
            return digest([self._state, str(len(self))])
        names = [str(self._rows[index].get(self._columns.image or "")) for index in range(len(self))]
        return digest([f"{-1 if is_data_uri(name) else _size(self._folder / name)} {name}" for name in names])

    def _captions(self, row: Row, name: str, label: int) -> Sequence[Any]:
        if self._columns.caption is None:
            if not 0 <= label < len(self.label_names):
                raise BrokenSample(
                    name, f"it has no caption, and its class is not one of the {len(self.label_names)} named"
                )
            return class_captions(self.label_names[label], self._templates)
        captions = row.get(self._columns.caption)
        if isinstance(captions, Path):
            captions = _file_captions(captions, name)
        return captions if isinstance(captions, list | tuple) else [captions]

    def _fetched(self, address: str) -> bytes:
        if not self._columns.fetch:
            raise BrokenSample(
                address,
                "its picture is a web address, which is fetched only when asked for; --fetch, "
                "--set data.columns.fetch=true or Columns(fetch=True) allow it",
            )
        try:
            return download(address)
        except DownloadError as error:
            raise BrokenSample(address, str(error)) from error

    def _image(self, picture: Any, name: str) -> bytes | Image.Image:
        if isinstance(picture, Mapping):
            picture = picture.get("bytes") or picture.get("path")
        if isinstance(picture, str) and is_data_uri(picture):
            try:
                return data_uri_bytes(picture)
            except ValueError as error:
                raise BrokenSample(name, f"its picture {error}") from error
        if isinstance(picture, str) and picture:
            return self._fetched(picture) if "://" in picture else _content(self._folder / picture, name, "it")
        if isinstance(picture, bytes | Image.Image):
            return picture
        raise BrokenSample(name, f"its picture is {clip(repr(picture))}, expected a path, bytes or an image")


def class_captions(label_name: str, templates: Sequence[str]) -> list[str]:
    """The class name, `_` read as a space, in every template."""
    return [template.replace("{}", label_name.replace("_", " ")) for template in templates]


def open_table(
    path: Path,
    columns: Columns,
    templates: Sequence[str],
    label_names: Sequence[str] = (),
    part: str | None = None,
) -> TableSource:
    """A .csv or .tsv with a header, .jsonl, .json, or .parquet file, or the `part` of it that its column "split" names.

    Rows with the same picture path become one sample.

    A Parquet file that holds the pictures themselves is kept in memory, encoded; larger ones are for `datasets`.
    """
    rows = read_table(path, part)
    if not len(rows):
        raise DataError(f"{path} has no rows; expected one for each picture")
    names = rows.table.column_names if isinstance(rows, ArrowRows) else list(dict.fromkeys(chain.from_iterable(rows)))
    columns = columns.found_in(names, str(path))
    labels = sorted({label for label in column_of(rows, columns.label) if isinstance(label, str)})
    _check_numbers(path, [label for label in column_of(rows, columns.label) if type(label) is int], label_names)
    state = None
    if isinstance(rows, ArrowRows):
        state = f"{path.name} {path.stat().st_size}"
    elif columns.caption is not None:
        rows = _joined_by_picture(rows, str(columns.image), columns.caption)
    names = labels or label_names
    return TableSource(rows, columns, folder=path.parent, label_names=names, templates=templates, state=state)


def _check_numbers(path: Path, numbers: Sequence[int], names: Sequence[str]) -> None:
    """Classes that are numbers where names are given: raise or warn where these cannot belong to them."""
    if not numbers or not names:
        return
    if max(numbers) >= len(names):
        counted = "; they seem to count from 1, and must count from 0" if min(numbers) > 0 else ""
        raise DataError(f"{path} has classes numbered up to {max(numbers)}, and {len(names)} have a name{counted}")
    if min(numbers) > 0:
        warn(f"{path}: no picture is of class 0, {clip(names[0])}; classes count from 0")


def open_dataset(
    dataset: Any, columns: Columns, templates: Sequence[str], label_names: Sequence[str] = ()
) -> TableSource:
    """A `datasets.Dataset` with pictures or paths in a column; pictures are read without decoding."""
    import datasets

    if not hasattr(dataset, "__len__"):
        raise DataError("a streamed data set has no fixed order to resume in; load it without streaming=True")
    columns = columns.found_in(dataset.column_names, "the data set")
    if isinstance(dataset.features[columns.image], datasets.Image):
        dataset = dataset.cast_column(columns.image, datasets.Image(decode=False))
    label = dataset.features.get(columns.label)
    names = label.names if isinstance(label, datasets.ClassLabel) else label_names
    state: str = dataset._fingerprint
    return TableSource(dataset, columns, folder=Path(), label_names=names, templates=templates, state=state)


def load_dataset_folder(folder: Path) -> Any:
    """What `datasets.Dataset.save_to_disk` wrote."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{folder} is a Hugging Face data set; pip install 'siglip[datasets]' to read it") from error
    return datasets.load_from_disk(str(folder))


def _joined_by_picture(rows: list[Row], image: str, caption: str) -> list[Row]:
    """Tables with one caption a row name a picture several times: its first row takes the captions of all.

    Rows that ask different things of a picture, in a column "prefix" or as questions, stay apart, answered or not.
    """
    joined: dict[Any, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        given, picture, question = row.get(caption), row.get(image), row.get("question")
        # a caption in a table that also holds questions has an empty one
        is_caption = question is None or (given and not str(question).strip())
        if not isinstance(picture, str) or not is_caption or row.get("answers"):
            joined[number] = dict(row)
            continue
        first = joined.setdefault((picture, repr(row.get("prefix"))), {**row, caption: []})
        first[caption] += given if isinstance(given, list) else [given]
    return list(joined.values())


def _file_captions(path: Path, name: str) -> Any:
    """The text of a file, or the captions that a .json file holds."""
    data = _content(path, name, f"its caption {path.name}")
    try:
        if path.suffix.lower() != ".json":
            return text_of(data)
        facts = json.loads(text_of(data))
    except ValueError as error:
        reason = str(error) if str(error).startswith("is ") else f"is not valid JSON: {error}"
        raise BrokenSample(name, f"its caption {path.name} {reason}") from error
    return json_captions(facts)


def json_captions(facts: Any) -> Any:
    """The caption or captions in what a .json file beside a picture holds; None if there are none."""
    if isinstance(facts, dict):
        found = (facts[key] for key in ("captions", "caption", "text") if facts.get(key))
        return next(found, None)
    return facts if isinstance(facts, str | list) else None


def _content(path: Path, name: str, what: str) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise BrokenSample(name, f"{what} cannot be read: {error.strerror}") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # no file, or no name of one
        return -1


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in wanted if name in by_lower), None)
