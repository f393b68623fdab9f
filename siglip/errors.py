"""Every error this package raises on purpose.

    SiglipError
    |- ConfigError            (ValueError)           a configuration that cannot be built, or an unknown key
    |- InputError             (ValueError)           an argument that cannot be worked on, such as no labels
    |- ShapeError             (ValueError)           arrays whose sizes do not fit together
    |- PreparationError       (ValueError)           no text, or an option that would change how input is prepared
    |- UnreadableImage        (ValueError)           bytes that are not a picture, or a broken or too large one
    |- CheckpointError        (ValueError)           a folder or file that holds no model we can read
    |  `- TensorMismatch                             missing, unexpected or wrongly shaped tensors, all listed
    |- DataError              (ValueError)           a data set that cannot be read, or has too many broken samples
    |  `- BrokenSample                               one sample that cannot be used, such as one without a caption
    |- LibraryError           (ValueError)           no library of pictures, or a damaged, newer or busy one
    |- TrainingError          (RuntimeError)         a run that must not go on, such as a loss that is not finite
    |- DownloadError          (OSError)              a hub or URL that could not be reached
    `- NotYetSupported        (NotImplementedError)  a published model that this version does not run

Each message says what was got, what was expected, and what to do. The command line prints it as one line.
"""

import difflib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """One input that could not be used while the others went on: its name, why, and its position (-1: none)."""

    name: str
    reason: str
    index: int = -1

    def record(self) -> dict[str, str]:
        """Name and reason, for JSON."""
        return {"name": self.name, "reason": self.reason}


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` most likely stands for, or None where none is close enough to be worth a guess.

    Case does not count. The owner of a hub name may be left out ("siglip-base" for "google/siglip-base"), and the last
    part of a name may stand for the whole ("lr" for "optimizer.lr").
    """
    keys = {key.lower(): whole for whole in reversed([*known]) for key in (whole.rpartition("/")[2], whole)}
    near = difflib.get_close_matches(word.lower(), keys, n=1, cutoff=0.7)
    ending = [whole for whole in keys.values() if whole.lower().endswith((f".{word.lower()}", f"-{word.lower()}"))]
    return keys[near[0]] if near else next(iter(ending), None) if word else None


class SiglipWarning(UserWarning):
    """Something was done that may not be what was meant; the command line prints it as one line."""


def warn(message: str) -> None:
    """Say `message` as a SiglipWarning of the code that called the function that calls this."""
    warnings.warn(message, SiglipWarning, stacklevel=3)


def clip(value: object, limit: int = 80) -> str:
    """A value as messages show it: a text as it is, anything else by its repr; the middle of a long one left out."""
    text = value if isinstance(value, str) else repr(value)
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"


class SiglipError(Exception):
    """Base of all errors below; catch it to catch them all.

    What stands in a message without a blank for more than 200 characters, such as a path that is none, is cut.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(re.sub(r"\S{201,}", lambda word: clip(word[0]), message))


class ConfigError(SiglipError, ValueError):
    """A configuration that cannot be built, or an unknown key."""


class InputError(SiglipError, ValueError):
    """An argument that cannot be worked on: nothing where something is needed, one thing where a list is needed."""


class ShapeError(SiglipError, ValueError):
    """Arrays whose sizes do not fit together."""


class PreparationError(SiglipError, ValueError):
    """Input that is not text, or an option that would change how the checkpoint prepares text or pixels."""


class UnreadableImage(SiglipError, ValueError):
    """Bytes that are not a picture, a broken picture, or one beyond the limits; `name` says which."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[Exception], tuple[str, str]]:
        return type(self), (self.name, self.reason)  # how it travels between processes


class CheckpointError(SiglipError, ValueError):
    """A folder or file that holds no model we can read."""


class TensorMismatch(CheckpointError):
    """Missing, unexpected or wrongly shaped tensors; the message lists them."""


class DataError(SiglipError, ValueError):
    """A data set that cannot be read, or has too many broken samples."""


class BrokenSample(DataError):
    """One sample that cannot be used; `name` says which. Loaders count it and go on with another."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[Exception], tuple[str, str]]:
        return type(self), (self.name, self.reason)  # how it travels between processes


class LibraryError(SiglipError, ValueError):
    """A folder that is not a library of pictures, or a damaged, newer or busy one."""


class TrainingError(SiglipError, RuntimeError):
    """A run that must not go on, such as a loss that is not finite."""


class DownloadError(SiglipError, OSError):
    """A hub or URL that could not be reached."""


class NotYetSupported(SiglipError, NotImplementedError):
    """A published model that this version does not run."""
