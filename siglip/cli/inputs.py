"""Words of a command line -> picture names, texts, and the embedder for them. No torch until that is made."""

import argparse
import glob
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from siglip.cli.output import progress
from siglip.errors import DataError, Failure, clip, did_you_mean
from siglip.files import existing
from siglip.pictures import IMAGE_SUFFIXES, PassedOver, walk
from siglip.releases import check_model_name

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

    from siglip.classifier import Classifier
    from siglip.data import Columns
    from siglip.embedder import Embedder


class UsageError(Exception):
    """Arguments that do not fit together, found after parsing."""


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGES",
        help="files, folders (searched through, hidden ones left out), quoted patterns such as 'photos/**/*.jpg', "
        "http(s) addresses, or - to read such names from stdin, one a line; put -- before names that begin with -",
    )
    parser.add_argument("-0", "--null", action="store_true", help="names on stdin end with NUL, as of `find -print0`")


def add_model_arguments(parser: argparse.ArgumentParser, *, named: bool = False, dtype: str = "auto") -> None:
    """`--model`, unless it is `named` by words without an option, and how to run it; `dtype` unless one is given."""
    group = parser.add_argument_group("model")
    if not named:
        group.add_argument(
            "--model",
            default="nano",
            help="nano (built in), a folder, or a hub name such as google/siglip2-base-patch16-256; "
            "see `siglip models` (default: nano)",
        )
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the first GPU, else the CPU)")
    group.add_argument(
        "--dtype",
        default=dtype,
        choices=["auto", "float32", "bfloat16", "float16"],
        help=f"numbers of the towers; auto: bfloat16 where the processor has it, else float32 (default: {dtype})",
    )
    group.add_argument("--batch-size", type=positive, default=32, metavar="N", help="items at a time (default: 32)")


def add_text_arguments(parser: argparse.ArgumentParser, name: str, *, required: bool = True) -> None:
    """`--labels A B` and `--labels-file F` (or the same with texts), of which one is given."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(f"--{name}", nargs="+", type=text, metavar=name.upper()[:-1], help=f"the {name} themselves")
    group.add_argument(
        f"--{name}-file",
        type=Path,
        metavar="FILE",
        help=f"a text file, one of the {name} a line; blank lines and lines that begin with # are skipped",
    )


def add_column_argument(parser: argparse.ArgumentParser) -> None:
    """`--column image=URL`, once for each column whose name does not tell what it holds."""
    parser.add_argument(
        "--column",
        action="append",
        type=_column,
        default=[],
        metavar="PART=NAME",
        help="the column of a table that holds the image, caption or label, such as image=URL; may be given again",
    )
    parser.add_argument("--fetch", action="store_true", help="download pictures that a table names by web addresses")


def columns(arguments: argparse.Namespace) -> "Columns":
    """What `--column` names, and whether `--fetch` is given."""
    from siglip.data import Columns

    return Columns(**dict(arguments.column), fetch=arguments.fetch)


def positive(word: str) -> int:
    """A whole number >= 1, for argparse."""
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {clip(repr(word))}")
    return int(word)


def share(word: str) -> float:
    """A number from 0 to 1, for argparse."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {clip(repr(word))}")
    return value


def text(word: str) -> str:
    """A word that is text, for argparse: a shell can also pass bytes that are none."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{clip(repr(word))} is not UTF-8 text") from None
    return word


def texts(given: list[str] | None, file: Path | None) -> list[str]:
    """The texts given as words or in a file; raises DataError for a missing, unreadable or empty file.

    Raises UsageError for a word that is the name of a file: it was meant to be read, or to be a picture.
    """
    if file is None:
        words = given or []
        if files := [word for word in words if Path(word).suffix and existing(Path(word)) and Path(word).is_file()]:
            raise UsageError(
                f"{clip(repr(files[0]))} is a file but was given as a text; pictures come before --labels and --texts, "
                "a file with one text a line goes to --labels-file or --texts-file"
            )
        return words
    if existing(file) is None:
        raise DataError(f"no file {clip(repr(str(file)))}{_nearest(file, Path.is_file)}")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    kept = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not kept:
        raise DataError(f"{file} contains no text: every line is blank or a comment; write one text a line")
    return kept


def image_names(words: Sequence[str], *, null: bool = False) -> tuple[list[str], list[Failure]]:
    """All pictures that the words name, in their order, and the words that name none.

    With `null` the names on stdin end with NUL and not with their line. Raises DataError, before anything heavy is
    loaded, if there is no picture at all, UsageError if there is no word.
    """
    if null and "-" not in words:
        raise UsageError("--null (-0) is for names on stdin, which - among the pictures reads; add -, or leave it out")
    if not words:
        raise UsageError("no pictures were given; they come first, before --labels or --texts")
    names: list[str] = []
    failed: list[Failure] = []
    for word in words:
        for name in _from_stdin(null) if word == "-" else [word]:
            names += _expand(name, failed)
    if not names:
        told = [f"{item.name!r:.80}: {item.reason}" for item in failed[:3]] or ["stdin names no pictures"]
        raise DataError("; ".join(told) + (f"; and {len(failed) - 3} more" if len(failed) > 3 else ""))
    return names, failed


def load_embedder(arguments: argparse.Namespace, model: str | None = None) -> "Embedder":
    """The embedder of `model` (None: of `--model`); a name that cannot be one is refused before torch is loaded."""
    name: str = model or arguments.model
    check_model_name(name)
    from siglip.embedder import Embedder

    return Embedder.from_pretrained(
        name, device=arguments.device, dtype=arguments.dtype, batch_size=arguments.batch_size
    )


def load_classifier(arguments: argparse.Namespace, model: str | None = None) -> "Classifier | None":
    """The trained classifier of that name (None: of `--model`), or None if it is no classifier."""
    name: str = model or arguments.model
    check_model_name(name)
    if name == "nano":
        return None  # said before anything heavy is loaded
    from siglip.checkpoints import classifies
    from siglip.classifier import Classifier

    options = {"device": arguments.device, "dtype": arguments.dtype, "batch_size": arguments.batch_size}
    return Classifier.from_pretrained(name, **options) if classifies(name) else None


def picture_rows(
    stream: "Callable[[Sequence[str]], Iterable[tuple[int, np.ndarray] | Failure]]",
    names: Sequence[str],
    failed: list[Failure],
    *,
    bar: bool,
) -> "Iterator[tuple[str, Float32[np.ndarray, ' numbers']]]":
    """Name and row of each readable picture as they come from a `stream`; the others are added to `failed`."""
    with progress(len(names), "picture", wanted=bar) as done:
        for item in stream(names):
            done(1)
            if isinstance(item, Failure):
                failed.append(Failure(_shown(names[item.index]), item.reason))
            else:
                yield _shown(names[item[0]]), item[1]


def _shown(name: str) -> str:
    """The name of a picture in results; one that is the picture itself is cut."""
    return clip(name) if name[:5].lower() == "data:" else name


def _column(word: str) -> tuple[str, str]:
    part, _, name = word.partition("=")
    if part not in ("image", "caption", "label") or not name:
        raise argparse.ArgumentTypeError(f"expected image=NAME, caption=NAME or label=NAME, got {clip(repr(word))}")
    return part, name


def _from_stdin(null: bool) -> list[str]:
    piped = sys.stdin.buffer.read()
    if b"\0" in piped and not null:
        raise DataError(
            "stdin holds NUL characters, but names of pictures are expected there, one a line; after `find -print0` "
            "add --null (-0); to use a picture itself, name its file"
        )
    lines = piped.split(b"\0") if null else (line.rstrip(b"\r") for line in piped.split(b"\n"))
    return [os.fsdecode(line) for line in lines if line]


def _expand(word: str, failed: list[Failure]) -> list[str]:
    """The pictures that a word means; what names none is added to `failed`."""
    if re.match(r"https?://|data:", word, re.IGNORECASE):
        return [word]
    if not glob.has_magic(word) or os.path.lexists(word):
        return _named(word, failed)
    matches = dict.fromkeys(_matches(word))
    if not matches:
        failed.append(Failure(word, "no file matches this pattern"))
    return [name for match in matches for name in _named(match, failed)]


def _named(word: str, failed: list[Failure]) -> list[str]:
    """The file of that name, or the pictures in the folder of that name."""
    path = Path(word)
    found: list[str] = []
    try:
        if not word:
            reason = "an empty name"
        elif path.is_dir():
            found = _pictures_in(path, failed)
            reason = "no pictures in this folder; they are recognised by suffixes such as .jpg, .png, .webp"
        elif path.exists():
            return [word]
        elif path.is_symlink():
            reason = "a link to a file that does not exist"
        else:
            # hints for the first few only: a folder can hold many names to compare with
            reason = "no such file or folder" + (_nearest(path, _may_be_picture) if len(failed) < 3 else "")
    except OSError as error:
        reason = error.strerror or str(error)
    if not found:
        failed.append(Failure(word, reason))
    return found


def _matches(pattern: str) -> Iterator[str]:
    """Names that match as in a shell: `**` stands for any folders, but for no hidden ones and no links."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from sorted(glob.glob(pattern))  # noqa: PTH207 (Path.glob refuses absolute patterns)
        return
    place = parts.index("**")
    head, tail = "/".join(parts[:place]), "/".join(parts[place + 1 :])
    for root in sorted(glob.glob(head or "/")) if place else ["."]:  # noqa: PTH207
        for folder, folders, _ in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = folder if place else folder.removeprefix(".").removeprefix("/")
            if not tail:
                yield inside or "."  # all below it comes with it
                break
            yield from _matches(str(Path(glob.escape(inside), tail)))


def _pictures_in(folder: Path, failed: list[Failure]) -> list[str]:
    def unreadable(error: OSError) -> None:
        failed.append(Failure(str(error.filename), error.strerror or str(error)))

    names: list[str] = []
    passed_over = PassedOver()
    for path in walk(folder, unreadable):
        if _is_device(path):
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            names.append(str(path))
        else:
            passed_over.add(path)
    passed_over.warn(folder)
    return names


def _is_device(path: Path) -> bool:
    """Pipes and devices, where reading could wait for ever. Not a broken link: reading it says what is wrong."""
    with suppress(OSError):
        mode = path.stat().st_mode
        return not stat.S_ISREG(mode)
    return False


def _nearest(path: Path, usable: Callable[[Path], bool]) -> str:
    """`; did you mean 'x'?` for the nearest name in the same folder that is usable, or nothing."""
    with suppress(OSError):
        siblings = (sibling for sibling in islice(path.parent.iterdir(), 10_000) if usable(sibling))
        near = did_you_mean(path.name, [sibling.name for sibling in siblings])
        return f"; did you mean {clip(repr(str(path.parent / near)))}?" if near else ""
    return ""


def _may_be_picture(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES)
