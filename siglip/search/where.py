"""A filter such as "taken >= 2024-01 and path like '%holiday%'" -> SQL with bound values; nothing else gets through."""

import difflib
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from siglip.errors import InputError, clip

_DAY = "strftime('%Y-%m-%dT%H:%M:%S', f.mtime_ns / 1000000000, 'unixepoch', 'localtime')"
# name -> (SQL, what its values are)
COLUMNS = {
    "path": ("CAST(f.path AS TEXT)", "text"),
    "name": ("CAST(f.name AS TEXT)", "text"),
    "size": ("f.size", "number"),
    "modified": (_DAY, "time"),
    "taken": ("i.taken", "time"),
    "width": ("i.width", "number"),
    "height": ("i.height", "number"),
    "format": ("i.format", "text"),
    "camera": ("i.camera", "text"),
    "latitude": ("i.latitude", "number"),
    "longitude": ("i.longitude", "number"),
    "seconds": ("i.seconds", "number"),
}  # fmt: skip
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")"""
    r"""|(?P<time>\d{4}-\d\d(?:-\d\d(?:[T ]\d\d(?::\d\d){0,2})?)?(?![\w.]))"""
    r"""|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))|(?P<word>[A-Za-z_]\w*)"""
    r"""|(?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,))"""
)
_COMPARE = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TIME = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?)?")
_MOST_DEEP = 50
EXAMPLE = "taken >= 2024-01-01 and width > 1000"


class _Token(NamedTuple):
    kind: str  # text, time, number, word, sign or end
    text: str
    place: int


@dataclass(frozen=True, slots=True)
class Where:
    """A condition over `f` (file) and `i` (image), and the values of its question marks."""

    sql: str
    values: tuple[Any, ...]


def parse_where(text: str) -> Where:
    """Parse a filter: comparisons, `like`, `in (...)`, `is null`, with `and`, `or`, `not` and brackets.

    Columns are those of COLUMNS. A time may be cut anywhere: `taken = 2024-05` is that month, `taken <= 2024-05-01`
    includes that day. Raises InputError.
    """
    parser = _Parser(text)
    sql = parser.either(0)
    if parser.token.kind != "end":
        raise parser.wrong("'and', 'or' or the end")
    return Where(sql, tuple(parser.values))


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.values: list[Any] = []
        self.tokens = self._tokens()
        self.next = 0

    def _tokens(self) -> list[_Token]:
        found: list[_Token] = []
        place = 0
        while self.text[place:].strip():
            match = _TOKEN.match(self.text, place)
            if match is None:
                at = len(self.text) - len(self.text[place:].lstrip())
                raise InputError(
                    f"where: {clip(repr(self.text[at:][:20]))} is not understood; write for example {EXAMPLE}"
                )
            kind = str(match.lastgroup)
            found.append(_Token(kind, match.group(kind), match.start(kind)))
            place = match.end()
        return [*found, _Token("end", "", len(self.text))]

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def wrong(self, expected: str) -> InputError:
        got = (
            f"{clip(repr(self.token.text))} at character {self.token.place + 1}"
            if self.token.kind != "end"
            else "the end"
        )
        return InputError(f"where {clip(repr(self.text))}: expected {expected}, got {got}; write for example {EXAMPLE}")

    def word(self, *words: str) -> bool:
        """Step over one of these words, or not."""
        if self.token.kind in ("word", "sign") and self.token.text.lower() in words:
            self.next += 1
            return True
        return False

    def either(self, depth: int) -> str:
        parts = [self.both(depth)]
        while self.word("or"):
            parts.append(self.both(depth))
        return f"({' OR '.join(parts)})"

    def both(self, depth: int) -> str:
        parts = [self.single(depth)]
        while self.word("and"):
            parts.append(self.single(depth))
        return f"({' AND '.join(parts)})"

    def single(self, depth: int) -> str:
        if depth > _MOST_DEEP:
            raise InputError(f"where: more than {_MOST_DEEP} brackets within one another")
        if self.word("not"):
            # what is unknown is not so: without this, NOT of a missing date would hold for no picture
            return f"(NOT coalesce({self.single(depth + 1)}, 0))"
        if self.word("("):
            inner = self.either(depth + 1)
            if not self.word(")"):
                raise self.wrong("')'")
            return inner
        return self.comparison()

    def comparison(self) -> str:
        if self.token.kind != "word":
            raise self.wrong(f"one of the columns {', '.join(COLUMNS)}")
        name = self.token.text.lower()
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(COLUMNS)}"
            raise InputError(f"where: no column {clip(repr(self.token.text))}; {hint}")
        self.next += 1
        column, kind = COLUMNS[name]
        if self.word("is"):
            negated = self.word("not")
            if not self.word("null"):
                raise self.wrong("'null'")
            return f"{column} IS {'NOT ' if negated else ''}NULL"
        sign = self.token
        negated = self.word("not")
        if self.word("like"):
            return f"{column} {'NOT ' if negated else ''}LIKE {self.value('text')}"
        if self.word("in"):
            return self.among(column, kind, negated)
        if negated or sign.text not in _COMPARE:
            raise self.wrong("a comparison: = != < <= > >= like in is")
        self.next += 1
        return self.compared(column, kind, _COMPARE[sign.text])

    def compared(self, column: str, kind: str, sign: str) -> str:
        if kind == "time":
            mark = self.value(kind)
            column = f"substr({column}, 1, {len(self.values[-1])})"
            return f"{column} {sign} {mark}"
        return f"{column} {sign} {self.value(kind)}"

    def among(self, column: str, kind: str, negated: bool) -> str:
        if not self.word("("):
            raise self.wrong("'(' and values")
        parts = [self.compared(column, kind, "=")]
        while self.word(","):
            parts.append(self.compared(column, kind, "="))
        if not self.word(")"):
            raise self.wrong("',' or ')'")
        return f"({'NOT ' if negated else ''}({' OR '.join(parts)}))"

    def value(self, kind: str) -> str:
        token = self.token
        text = token.text[1:-1].replace(token.text[0] * 2, token.text[0]) if token.kind == "text" else token.text
        if kind == "number":
            if token.kind not in ("number", "time"):
                raise self.wrong("a number")
            if token.kind == "time":
                raise self.wrong("a number, not a date")
            value: Any = float(text) if any(c in text for c in ".eE") else int(text)
            if isinstance(value, int) and abs(value) >= 2**63:
                raise self.wrong("a number below 9e18")
        elif kind == "time":
            value = text.replace(" ", "T")
            if not _is_time(value):
                raise self.wrong("a time such as 2024, 2024-05, 2024-05-31 or '2024-05-31 18:20'")
        elif token.kind != "text":
            raise self.wrong("a text in quotes, such as '%holiday%'")
        else:
            value = text
        self.next += 1
        self.values.append(value)
        return "?"


def _is_time(text: str) -> bool:
    """Whether a time begins like this: there is no 2024-13, and no 2023-02-29."""
    if _TIME.fullmatch(text):
        with suppress(ValueError):
            datetime.fromisoformat(text + "0001-01-01T00:00:00"[len(text) :])
            return True
    return False
