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
    neither, nan no float, and True no number. A whole number may stand for a float, and a list for a tuple.
    """
    made: Any = kind.__init__

    @functools.wraps(made)
    def init(self: Any, **values: Any) -> None:
        hints = annotations(kind)
        reject_unknown_keys(values, set(hints), kind.__name__)
        for name, value in values.items():
            if not any(_holds(option, value) for option in options(hints[name])):
                expected = described(hints[name])
                hint = "; from_dict reads dictionaries" if isinstance(value, Mapping) else ""
                raise ConfigError(f"{kind.__name__}.{name} must be {expected}, got {clip(repr(value))}{hint}")
        if missing := [name for name in _required(kind) if name not in values]:
            raise ConfigError(f"{kind.__name__} needs {' and '.join(missing)}, which nothing gives")
        made(self, **values)

    kind.__init__ = init
    return kind


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
            words.append(_WORDS.get(option) or getattr(option, "__name__", str(option)))
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
        return isinstance(value, int) and not isinstance(value, bool)
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
