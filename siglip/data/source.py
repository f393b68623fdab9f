"""What every source of samples offers: index -> picture, captions, label. Tables and shards are where they lie."""

import codecs
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from siglip.data.order import Order
from siglip.errors import BrokenSample, DataError, clip


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One picture and what is said of it.

    `image`: the bytes of a file, a PIL picture, or None where it was not asked for. `captions`: the
    main one first. `label`: index into the source's `label_names`, -1 where unknown. `concept`: pictures with the same
    one show the same thing. `facts`: what else is known, such as the licence; `pack` carries it on.
    """

    name: str
    image: bytes | Image.Image | None
    captions: tuple[str, ...]
    label: int = -1
    concept: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


@runtime_checkable
class Source(Protocol):
    """Samples by number, in any order, from any process."""

    label_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def sample(self, index: int, *, image: bool = True) -> Sample:
        """One sample; `image=False` reads no picture. Raises BrokenSample if it cannot be used."""
        ...

    def order(self, seed: int, epoch: int) -> Order:
        """The order of pass `epoch`: a pure function of both numbers."""
        ...

    def prepare(self, indices: Sequence[int]) -> None:
        """Bring near what is far: fetch what these samples will need, if anything. May be called from a thread."""
        ...

    def fingerprint(self) -> str:
        """Hex digest of names, sizes and count: another one when the data change, without reading pictures."""
        ...


class Subset:
    """Some samples of a source, numbered as in `indices`: a held-out part, or all but the broken ones."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self._source = source
        self._indices = np.asarray(indices, np.int64)
        outside = self._indices[(self._indices < 0) | (self._indices >= len(source))]
        if len(outside):
            raise DataError(f"there are samples 0 to {len(source) - 1}, the subset asks for {outside[:5].tolist()}")
        if len(np.unique(self._indices)) < len(self._indices):
            raise DataError("a subset takes each sample once, but some indices are given twice; drop the repetitions")
        self.label_names = source.label_names

    def __len__(self) -> int:
        return len(self._indices)

    def sample(self, index: int, *, image: bool = True) -> Sample:
        """Sample `indices[index]` of the whole."""
        return self._source.sample(int(self._indices[index]), image=image)

    def order(self, seed: int, epoch: int) -> Order:
        """The whole's order with the others left out, so that shards are still walked window by window."""
        place = np.full(len(self._source), -1)
        place[self._indices] = np.arange(len(self))
        order = place[self._source.order(seed, epoch)]
        return order[order >= 0]

    def prepare(self, indices: Sequence[int]) -> None:
        """What the whole does for these samples."""
        self._source.prepare(self._indices[list(indices)].tolist())

    def fingerprint(self) -> str:
        """Differs with the whole and with the choice."""
        return digest([self._source.fingerprint(), self._indices.tobytes().hex()])


def text_of(data: bytes) -> str:
    """The text of a file: by its byte order mark, else UTF-8. Raises ValueError for what is neither; never guesses."""
    marks = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"))
    marks += ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
    encoding = next((name for mark, name in marks if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        wrong = f"byte 0x{data[error.start]:02x} at {error.start}" if error.start < len(data) else error.reason
        raise ValueError(f"is not {encoding.removesuffix('-sig').upper()} text ({wrong}); save it as UTF-8") from error
    if "\0" in text:
        raise ValueError("holds zero bytes, as UTF-16 without a byte order mark does; save it as UTF-8")
    return text


def plain(caption: str) -> str:
    """What equal captions have in common: words without case and white space."""
    return " ".join(caption.lower().split())


def usable_captions(name: str, captions: Sequence[Any], facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Captions without blank and repeated ones, in their order; raises BrokenSample if none is left.

    So does a prefix that is no text. What is missing is named as in the sample's `facts`: an answer to a question, a
    suffix to a prefix.
    """
    prefix = facts.get("prefix")
    if prefix is not None and not isinstance(prefix, str):
        raise BrokenSample(name, f"its prefix is {clip(repr(prefix))}, expected a text")
    # a lone surrogate, which JSON can spell, is no character and has no tokens
    texts = (text.encode("utf-8", "replace").decode().strip() for text in captions if isinstance(text, str))
    kept = tuple(dict.fromkeys(text for text in texts if text))
    if not kept:
        missing = "answer" if facts.get("question") is not None else "suffix" if facts.get("prefix") else "caption"
        raise BrokenSample(name, f"it has no {missing}")
    return kept


def as_prompt(row: Mapping[str, Any], text: Any) -> tuple[Mapping[str, Any], list[Any] | None]:
    """A row with a question, as one with a prefix; and its answers, the most frequent first, else None.

    Answers stand in "answers" or "answer": one or several, texts or objects with one; "answers" then holds what each
    person said, also repeated. Where there are none, `text`, which the row says otherwise, is the answer. The prefix is
    what PaliGemma was taught for questions, unless the row brings its own. A row with a text and an empty question, as
    tables have that hold captions and questions, is no question.
    """
    question, given = row.get("question"), row.get("answers")
    given = row.get("answer") if given is None else given
    if question is None:
        return row, None
    words = question.strip() if isinstance(question, str) else ""
    if not given and text:
        rest = {key: row[key] for key in row if key not in ("question", "answers", "answer")}
        return ({**row, "prefix": row.get("prefix") or f"answer en {words}"} if words else rest), None
    if isinstance(given, Mapping):
        # what `datasets` makes of a list of objects
        given = given.get("answer")
    listed = given if isinstance(given, list | tuple) else [given]
    answers = [item.get("answer") if isinstance(item, Mapping) else item for item in listed]
    texts = [item for item in answers if isinstance(item, str) and item.strip()]
    prefix = row.get("prefix") or (f"answer en {words}" if words else "")
    return {**row, "prefix": prefix, "answers": texts}, [text for text, _ in Counter(texts).most_common()]


def digest(parts: Sequence[str]) -> str:
    """Hex sha256 of the parts, one a line."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
