"""Cosines of a thousand names with a library's pictures -> how sure a hit is: what absent things find there.

A thing that is in no picture still has a nearest picture. How near it comes depends on the model and grows with the
library. So a thousand names of things are asked, and the cosine of each with its nearest picture is kept. Most of them
are in no picture of a library, so the bulk of these numbers shows what absence looks like: a Gumbel distribution, which
maxima of many numbers follow (Fisher and Tippett 1928), is laid through their median and the nearer one of their
quartiles. The upper quarter is not used, since the things that are there lie in it; where more than a quarter are
there, the upper quartile is the farther one and is not used either.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float, Float32

# the confidence from which a hit counts as a find. Chosen on collections that nano was trained on, with half of their
# classes taken out: one absent name in twenty at most reached it, but in those of one subject; docs/search.md has more
SURE = 0.97
# fewer names than this give no distribution worth the name
_LEAST_NAMES = 50


@dataclass(frozen=True, slots=True)
class Null:
    """The Gumbel distribution of the cosine between an absent thing's name and its nearest picture."""

    location: float
    scale: float

    def confidence(self, cosine: float) -> float:
        """The share of absent things whose nearest picture is farther than `cosine`, in [0, 1], by this fit."""
        return math.exp(-math.exp(min(700.0, -(cosine - self.location) / self.scale)))


@cache
def everyday_words() -> tuple[str, ...]:
    """A thousand nouns for things that can be seen, the most used first."""
    text = (resources.files("siglip") / "assets" / "search" / "words.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


@cache
def names_of_things() -> tuple[str, ...]:
    """The thousand classes of ImageNet: animals, plants, tools, vehicles, food and places, one name each."""
    text = (resources.files("siglip") / "assets" / "prompts" / "imagenet.classes.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


def nearest_cosines(
    names: Float32[np.ndarray, "names dim"], blocks: Iterable[Float[np.ndarray, "_ dim"]]
) -> Float32[np.ndarray, " names"]:
    """The largest cosine of each name over all blocks of unit rows; -1 where there is no row."""
    best = np.full(len(names), -1.0, np.float32)
    for block in blocks:
        np.maximum(best, (names @ block.astype(np.float32).T).max(axis=1, initial=-1.0), out=best)
    return best


def fit_null(maxima: Float[np.ndarray, " names"]) -> Null | None:
    """The distribution through the median of `maxima` and the nearer quartile; None where they tell nothing."""
    if len(maxima) < _LEAST_NAMES:
        return None
    lower, median, upper = np.quantile(maxima, [0.25, 0.5, 0.75])
    # the quantile p of a Gumbel distribution is location + scale * _reduced(p)
    scale = min(
        float(median - lower) / (_reduced(0.5) - _reduced(0.25)),
        float(upper - median) / (_reduced(0.75) - _reduced(0.5)),
    )
    if not scale > 0.0:
        return None
    return Null(location=float(median) - scale * _reduced(0.5), scale=scale)


def _reduced(share: float) -> float:
    return -math.log(-math.log(share))
