"""Results -> stdout, in one of four forms; everything else -> stderr.

A table when stdout is a terminal, tab-separated values with a heading when it is not, one JSON document, or one JSON
object a line. All but the document are written as the results come.
"""

import argparse
import json
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from siglip.errors import Failure
from siglip.files import in_megabytes

if TYPE_CHECKING:
    import numpy as np

Form = Literal["table", "tsv", "json", "jsonl"]
Cell = str | int | float

_GAP = "  "
_NARROWEST = 12
_LONGEST_NAME = 200
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, what needs room below it (the values, or a width in terminal cells), and the side it leans on."""

    name: str
    values: Iterable[Cell] = ()
    width: int = 0
    right: bool = False


def add_form_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_const", const="json", dest="form", help="print one JSON document")
    group.add_argument("--jsonl", action="store_const", const="jsonl", dest="form", help="print one JSON object a line")


def form_of(arguments: argparse.Namespace) -> Form:
    """What `--json` or `--jsonl` ask for, else what suits stdout."""
    return arguments.form or ("table" if sys.stdout.isatty() else "tsv")


class Report:
    """Records, each with the rows that show it; `close` ends the document.

    `columns` are the table's; `key` and `head` the document's: `{**head, key: [record, ...], "failures": [...]}`.
    """

    def __init__(self, form: Form, columns: Sequence[Column], *, key: str, head: Mapping[str, Any]) -> None:
        self._form, self._key, self._head = form, key, head
        self._records: list[Mapping[str, Any]] = []
        self._columns = columns
        self._widths = _fitted(columns) if form == "table" else []
        if form in ("table", "tsv"):
            self._write_row([column.name for column in columns], _BOLD)

    def add(self, record: Mapping[str, Any], rows: Sequence[Sequence[Cell]], *, best: int | None = None) -> None:
        """One result, best row first: a table names it once, shows the further rows dimmed and the cell `best` bold."""
        if self._form == "json":
            self._records.append(record)
        elif self._form == "jsonl":
            _write(as_json(record))
        elif self._form == "tsv":
            for row in rows:
                self._write_row(row)
        else:
            self._write_row(rows[0], best=best)
            for row in rows[1:]:
                self._write_row(["", *row[1:]], _DIM)

    def close(self, failed: Sequence[Failure] = ()) -> None:
        """Write what is still to be written."""
        if self._form == "json":
            failures = [item.record() for item in failed]
            _write(as_json({**self._head, self._key: self._records, "failures": failures}, indent=2))

    def _write_row(self, row: Sequence[Cell], style: str = "", best: int | None = None) -> None:
        if self._form == "tsv":
            _write("\t".join(f"{value:.7g}" if isinstance(value, float) else _escaped(str(value)) for value in row))
            return
        cells = [
            _padded(shown(value), width, column.right)
            for value, width, column in zip(row, self._widths, self._columns, strict=True)
        ]
        if best is not None:
            cells[best] = _styled(cells[best], _BOLD)
        _write(_styled(_GAP.join(cells).rstrip(), style))


def print_record(form: Form, record: Mapping[str, Any]) -> None:
    """One thing with many properties: name and value a line, or one JSON object."""
    if form in ("json", "jsonl"):
        _write(as_json(record, indent=2 if form == "json" else None))
        return
    if form == "tsv":
        for name, value in _flat(record):
            _write(f"{name}\t{_escaped(value if isinstance(value, str) else json.dumps(value))}")
    else:
        print_facts([(name, _in_words(name, value)) for name, value in _flat(record)])


def print_facts(rows: Sequence[tuple[str, str]], *, summary: str | None = None) -> None:
    """A sentence, and names with what is said of each, broken between words where the terminal ends."""
    columns = shutil.get_terminal_size().columns
    if summary is not None:
        _write("\n".join(textwrap.wrap(_escaped(summary), columns, break_on_hyphens=False)) + "\n")
    width = max((len(name) for name, _ in rows), default=0)
    room = max(_NARROWEST, columns - width - len(_GAP))
    for name, value in rows:
        # what a shell would take, such as a path, stays in one piece
        pieces = textwrap.wrap(_escaped(value), room, break_long_words=False, break_on_hyphens=False) or [""]
        _write(f"\n{' ' * width}{_GAP}".join([f"{name:{width}}{_GAP}{pieces[0]}".rstrip(), *pieces[1:]]))


def fits(columns: Sequence[Column]) -> bool:
    """Whether a table of these columns fits the terminal with nothing clipped."""
    return _total(_wanted(columns)) <= shutil.get_terminal_size().columns


def shown(value: Cell) -> str:
    """A value as a reader wants it: three digits that count, and no control characters."""
    return f"{value:#.3g}" if isinstance(value, float) else _escaped(str(value))


def shortest(value: "np.float32") -> float:
    """The number with the fewest digits that is this float32 and no other."""
    return float(str(value))


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that UTF-8 can hold."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        # a file name that is not UTF-8; escapes are its only form in JSON
        return json.dumps(value, indent=indent)
    return text


def say(message: str) -> None:
    """Say something that is not a result, on stderr."""
    print(f"siglip: {_escaped(message)}", file=sys.stderr)


def report_failures(failed: Sequence[Failure], total: int) -> int:
    """The exit code: 0, or 3 after listing what failed."""
    if not failed:
        return 0
    say(f"{len(failed)} of {total} failed:")
    for item in failed:
        print(f"  {_clipped(_escaped(item.name), _LONGEST_NAME)}: {_escaped(item.reason)}", file=sys.stderr)
    return 3


@contextmanager
def progress(total: int, unit: str, *, wanted: bool = True) -> Generator[Callable[[int], None]]:
    """A bar on stderr if that is a terminal; call what it yields with the number of items just done."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=f" {unit}", file=sys.stderr, leave=False, dynamic_ncols=True) as bar:

        def done(count: int) -> None:
            bar.update(count)

        yield done


def from_totals(done: Callable[[int], None]) -> Callable[[int, int], None]:
    """What `progress` yields, for work that tells how much is done in all, and of how much."""
    before = 0

    def told(count: int, _: int) -> None:
        nonlocal before
        done(count - before)
        before = count

    return told


def _wanted(columns: Sequence[Column]) -> list[int]:
    return [max(column.width, *(_width(shown(value)) for value in (column.name, *column.values))) for column in columns]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _fitted(columns: Sequence[Column]) -> list[int]:
    """Widths that fit the terminal: the widest columns give way first, but keep enough to be told apart."""
    widths = _wanted(columns)
    while _total(widths) > shutil.get_terminal_size().columns and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _padded(text: str, width: int, right: bool) -> str:
    text = _clipped(text, width)
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _clipped(text: str, width: int) -> str:
    """The text, or its two ends when it is too wide: of a path, folder and file name tell the most."""
    if _width(text) <= width:
        return text
    head, tail = text[: len(text) // 2], text[len(text) // 2 :]
    while _width(head + tail) > width - 3:
        head, tail = (head[:-1], tail) if len(head) >= len(tail) else (head, tail[1:])
    return f"{head}...{tail}"


def _width(text: str) -> int:
    """Terminal cells that the text takes: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _escaped(text: str) -> str:
    """Without tabs, line ends and other control characters, which would break rows or drive the terminal."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(c.encode("unicode_escape").decode() if _breaks(c) else c for c in text)


def _breaks(character: str) -> bool:
    return character == "\\" or unicodedata.category(character) in ("Cc", "Zl", "Zp")


def _flat(record: Mapping[str, Any], prefix: str = "") -> Generator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _in_words(name: str, value: Any) -> str:
    """A value as a reader wants it: few digits, bytes in MB, and no brackets."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, int) and not isinstance(value, bool) and "bytes" in name:
        return in_megabytes(value)
    if isinstance(value, list | tuple):
        return ", ".join(_in_words(name, item) for item in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def _styled(text: str, style: str) -> str:
    plain = not style or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return text if plain else f"{style}{text}{_PLAIN}"


def _write(line: str) -> None:
    """One line, at once: what reads our pipe need not wait for a buffer to fill."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
