"""What every pipeline's call shares: its keywords -> how to read and write; a picture, a list, a stream -> results."""

import inspect
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, TypedDict, get_args

from siglip.captioner import GenerateOptions
from siglip.errors import Failure, InputError, UnreadableImage, clip
from siglip.keywords import unknown
from siglip.processing import ImageInput
from siglip.streaming import Pace, checked_batch_size, is_one_picture

Pictures = ImageInput | Iterable[ImageInput]


class CallOptions(TypedDict, total=False):
    """How one call reads its pictures: so many at a time, and the seconds that a web address may take to answer."""

    batch_size: int | None
    timeout: float | None


class WritingOptions(CallOptions, GenerateOptions, total=False):
    """The same and how tokens are chosen, also as one dictionary; without `do_sample` a temperature says that."""

    generate_kwargs: Mapping[str, Any] | None
    do_sample: bool | None


def task_of(pipe: object) -> str:
    """The task that a pipeline does, from the name of its class."""
    return re.sub("(?<!^)(?=[A-Z])", "-", type(pipe).__name__).lower()


def pace_of(pipe: Any, options: Mapping[str, Any]) -> Pace:
    """How to read, from the options of a pipeline's call; raises InputError for one that the call does not have."""
    parameters = inspect.signature(pipe.__call__).parameters.values()
    (extra,) = [item.annotation for item in parameters if item.kind is item.VAR_KEYWORD]
    known = list(get_args(extra)[0].__annotations__)
    for name in options:
        if name not in known:
            own = [item.name for item in parameters if item.kind is not item.VAR_KEYWORD]
            raise unknown(name, f"the pipeline {task_of(pipe)}", [*own, *known])
    pace = Pace()
    if (batch_size := options.get("batch_size")) is not None:
        pace["batch_size"] = checked_batch_size(batch_size)
    if (timeout := options.get("timeout")) is not None:
        if not isinstance(timeout, int | float) or not timeout > 0:
            raise InputError(f"timeout is a number of seconds above 0, got {clip(repr(timeout))}")
        pace["timeout_s"] = float(timeout)
    return pace


def choice_of(pipe: Any, options: Mapping[str, Any]) -> GenerateOptions:
    """How to write, from the options of a call that `pace_of` let pass; raises InputError where they contradict."""
    inner = options.get("generate_kwargs") or {}
    known = [*GenerateOptions.__annotations__, "do_sample"]
    for name in inner:
        if name not in known:
            raise unknown(name, f"generate_kwargs of the pipeline {task_of(pipe)}", known)
        if name in options:
            raise InputError(f"got {name} beside generate_kwargs and in it; give it once")
    given = {name: value for name, value in {**options, **inner}.items() if name in known and value is not None}
    sample = given.pop("do_sample", None)
    if sample is False and given.get("temperature"):
        raise InputError(
            f"do_sample=False draws nothing and temperature={given['temperature']} draws; give one of them"
        )
    if sample:
        given.setdefault("temperature", 1.0)
    return GenerateOptions(**given)


def checked_top_k(top_k: object) -> int:
    """How many results to give, 5 for None; raises InputError for what is no whole number of at least 1."""
    if top_k is None:
        return 5
    if not isinstance(top_k, int) or top_k < 1:
        raise InputError(f"top_k must be at least 1, got {clip(repr(top_k))}")
    return top_k


def each(images: Any, open_stream: Callable[[Any], Generator[Any, None, None]], finish: Callable[[Any], Any]) -> Any:
    """Work on and `finish` one picture, all of a list, or those of an iterator as they come."""
    if images is None or isinstance(images, Mapping) or _holds_mappings(images):
        raise InputError(
            f"expected a picture, a list or an iterator of pictures, got {clip(repr(images))}; pictures and texts are "
            "arguments of their own here, also those of a conversation"
        )
    single = is_one_picture(images)
    stream = open_stream([images] if single else images)
    if isinstance(images, Iterator) and not single:
        return _streamed(stream, finish)
    outcomes: list[Any] = []
    with closing(stream):
        for result in stream:
            if isinstance(result, Failure):
                raise UnreadableImage(result.name, result.reason)
            outcomes.append(finish(result))
    return outcomes[0] if single else outcomes


def _holds_mappings(images: Any) -> bool:
    return isinstance(images, list | tuple) and any(isinstance(item, Mapping) for item in images)


def _streamed(stream: Generator[Any, None, None], finish: Callable[[Any], Any]) -> Generator[Any, None, None]:
    with closing(stream):
        for result in stream:
            yield result if isinstance(result, Failure) else finish(result)
