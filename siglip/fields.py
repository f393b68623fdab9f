"""Values for a configuration -> the configuration, or a ConfigError for the first that its annotation forbids."""

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from siglip.errors import ConfigError, clip, did_you_mean

_Kind = TypeVar("_Kind")


def checked(kind: type[_Kind]) -> type[_Kind]:
    """A dataclass of keywords that refuses those it does not have, and values that its annotations do not allow.

    Known are int, float, str, bool, None, Literal, unions, tuples, mappings and dataclasses: "1000" is no int, 2.5
    neither, nan no float, and True no number. Whole numbers have at most 64 bits; one may stand for a float, and a list
    for a tuple.
    """
    made: Any = kind.__init__

    @functools.wraps(made)
    def init(self: Any, *unnamed: Any, **values: Any) -> None:
        hints = annotations(kind)
        if unnamed:
            example = f"{kind.__name__}({next(iter(hints))}=...)"
            raise ConfigError(f"{kind.__name__} takes every value by name, as {example}; got {clip(repr(unnamed))}")
        reject_unknown_keys(values, set(hints), kind.__name__)
        for name, value in values.items():
            if not any(_holds(option, value) for option in options(hints[name])):
                expected = described(hints[name])
                raise ConfigError(
                    f"{kind.__name__}.{name} must be {expected}, got {clip(repr(value))}{_remedy(hints[name], value)}"
                )
        if missing := [name for name in _required(kind) if name not in values]:
            raise ConfigError(f"{kind.__name__} needs a value for {' and for '.join(missing)}")
        made(self, **values)

    kind.__init__ = init
    return kind


def _remedy(hint: Any, value: Any) -> str:
    made: list[Any] = [option for option in options(hint) if dataclasses.is_dataclass(option)]
    if made and isinstance(value, Mapping):
        name = made[0].__name__
        return f"; {name}.from_dict reads dictionaries" if hasattr(made[0], "from_dict") else f"; give {name}(**values)"
    if int in options(hint) and isinstance(value, int) and not isinstance(value, bool):
        return "; use a smaller one"
    return ""


@functools.cache
def _required(kind: type) -> tuple[str, ...]:
    items: Any = kind
    return tuple(
        item.name
        for item in dataclasses.fields(items)
        if item.init and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    )


def reject_unknown_keys(given: Mapping[str, Any], known: set[str], where: str) -> None:
    """Raise ConfigError for the first key of `given` that is not in `known`, naming its nearest neighbour."""
    for key in given:
        if key not in known:
            nearest = did_you_mean(key, sorted(known))
            hint = f"did you mean {nearest!r}?" if nearest else f"known keys: {', '.join(sorted(known))}"
            raise ConfigError(f"{where} has no key {clip(key)!r}; {hint}")


def bounded(
    made: Any,
    *names: str,
    at_least: int | None = None,
    above: int | None = None,
    at_most: int | None = None,
    below: int | None = None,
) -> None:
    """Raise ConfigError for the first of these fields whose number is out of bounds; None is always within."""
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    said = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
    said = f"from {at_least} to {at_most}" if None not in (at_least, at_most) else said
    for name in names:
        value = getattr(made, name)
        if value is not None and (
            (at_least is not None and value < at_least)
            or (above is not None and value <= above)
            or (at_most is not None and value > at_most)
            or (below is not None and value >= below)
        ):
            raise ConfigError(f"{type(made).__name__}.{name} must be {said}, got {clip(repr(value))}")


def expect(value: object, kind: type, where: str) -> None:
    """Raise ConfigError for what is not of this class."""
    if not _holds(kind, value):
        raise ConfigError(f"{where} must be {described(kind)}, got {clip(repr(value))}")


def part(values: Mapping[str, Any], key: str, where: str) -> Mapping[Any, Any]:
    """What a file holds under `key`, empty if it is missing or null; raises ConfigError if it is no dictionary."""
    found = values.get(key)
    return as_mapping({} if found is None else found, f"{where}: {key}")


def as_mapping(values: Any, where: str) -> Mapping[Any, Any]:
    """The same, known to be a dictionary; raises ConfigError."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a dictionary, got {clip(repr(values))}")
    return typing.cast(Mapping[Any, Any], values)


def by_number(values: Mapping[Any, Any], where: str) -> dict[int, Any]:
    """Keys of JSON, which are texts, as whole numbers; raises ConfigError for one that is none."""
    try:
        return {int(key): value for key, value in values.items()}
    except ValueError:
        raise ConfigError(f"{where} must have whole numbers as keys, got {clip(repr([*values]))}") from None


@functools.cache
def annotations(kind: type) -> dict[str, Any]:
    """The annotation of each field."""
    hints = typing.get_type_hints(kind)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if is_union else (hint,)


def described(hint: Any) -> str:
    """An annotation as a user reads it: 'a', 'b' or none."""
    words: list[str] = []
    for option in options(hint):
        if typing.get_origin(option) is Literal:
            words += [repr(value) for value in typing.get_args(option)]
        else:
            name = option.__name__
            words.append(_WORDS.get(option) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}")
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
    types.NoneType: "none",
    tuple[float, float, float]: "three numbers",
    tuple[str, ...]: "texts",
    Mapping[int, str]: "texts by number",
}


def _holds(hint: Any, value: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if hint is float:
        # a whole number too large for a float has no answer to isfinite
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        items: tuple[Any, ...] = tuple(typing.cast(Any, value))
        wanted = inner[:1] * len(items) if inner[-1] is Ellipsis else inner
        return len(wanted) == len(items) and all(map(_holds, wanted, items))
    if origin is not None and issubclass(origin, Mapping):
        found: Any = value
        return isinstance(value, Mapping) and all(_holds(inner[0], k) and _holds(inner[1], v) for k, v in found.items())
    return isinstance(value, hint)
