"""What caption, ask and detect share: the model that writes, and one loop over pictures and results."""

import argparse
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from siglip.cli import inputs
from siglip.cli.output import progress
from siglip.errors import Failure
from siglip.files import existing
from siglip.releases import BUILT_IN_WRITER, check_model_name

if TYPE_CHECKING:
    from siglip.captioner import Captioner

_Result = TypeVar("_Result")


_MAX_TOKENS = 32


def add_arguments(
    parser: argparse.ArgumentParser, *, built_in: str | None = BUILT_IN_WRITER, max_tokens: int = _MAX_TOKENS
) -> None:
    """`--model` and how to run it, and how its text is chosen; without `built_in` a model must be named."""
    # None where it was not given: some commands have ways in which nothing is written
    parser.add_argument("--beams", type=inputs.positive, metavar="N", help="search with N beams (default: 1)")
    parser.add_argument(
        "--max-tokens", type=inputs.positive, metavar="N", help=f"longest text in tokens (default: {max_tokens})"
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        required=built_in is None,
        default=built_in,
        help="a PaliGemma: a folder, a big_vision .npz, or a hub name such as google/paligemma2-3b-mix-224"
        f"{'' if built_in is None else f' (default: {built_in}, which is built in)'}",
    )
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the first GPU, else the CPU)")
    group.add_argument(
        "--dtype",
        default="float32",
        choices=["auto", "float32", "bfloat16", "float16", "int8"],
        help="numbers of the model; auto: as they are stored; int8: a byte a weight (default: float32)",
    )
    group.add_argument("--batch-size", type=inputs.positive, default=8, metavar="N", help="at a time (default: 8)")


def options(arguments: argparse.Namespace, *, max_tokens: int = _MAX_TOKENS) -> dict[str, int]:
    """How the text is chosen, for `Captioner.write`."""
    return {"num_beams": arguments.beams or 1, "max_new_tokens": arguments.max_tokens or max_tokens}


def load(arguments: argparse.Namespace) -> "Captioner":
    """The model that writes; a name that cannot be one is refused before torch is loaded."""
    check_model_name(arguments.model)
    from siglip.captioner import Captioner

    return Captioner.from_pretrained(
        arguments.model, device=arguments.device, dtype=arguments.dtype, batch_size=arguments.batch_size
    )


def each(
    names: Sequence[str],
    failed: list[Failure],
    open_stream: Callable[[Sequence[str]], Generator[_Result | Failure, None, None]],
    *,
    bar: bool,
) -> Iterator[tuple[str, _Result]]:
    """Name and result of each readable picture as they come; the others are added to `failed`."""
    with progress(len(names), "picture", wanted=bar) as done:
        for name, item in zip(names, open_stream(names), strict=True):
            done(1)
            if isinstance(item, Failure):
                failed.append(Failure(name, item.reason))
            else:
                yield name, item


def split_last(words: list[str], what: str) -> tuple[list[str], str]:
    """The pictures, and the text behind them; raises UsageError if one is missing or blank, or the text is a file."""
    if len(words) < 2:
        raise inputs.UsageError(f"give pictures first and {what} last, in quotes")
    if not words[-1].strip():
        raise inputs.UsageError(f"the last word is blank; give {what} last, in quotes")
    file = existing(words[-1])
    if file is not None and file.is_file():
        raise inputs.UsageError(f"{words[-1]} is a file, and {what} must come last, in quotes")
    return words[:-1], inputs.text(words[-1])
