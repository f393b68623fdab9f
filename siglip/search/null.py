"""Cosines of a thousand names with a library's pictures -> how sure a hit is: what absent things find there.

A thing that is in no picture still has a nearest picture. How near it comes depends on the model and grows with the
library. So a thousand names of things are asked, and the cosine of each with its nearest picture is kept. Most of them
are in no picture of a library, so the bulk of these numbers shows what absence looks like: a Gumbel distribution, which
maxima of many numbers follow (Fisher and Tippett 1928), is laid through their median and the nearer one of their
quartiles. The upper quarter is not used, since the things that are there lie in it; where more than a quarter are
there, the upper quartile is the farther one and is not used either.

In a collection of one subject the names of that subject lie near all pictures, the absent ones too. So the cosine is
judged a second time, by how far it lies above what the mean cosine with all pictures foretells: a straight line through
the same thousand names, and a Gumbel distribution of what they depart from it. The lower of the two counts.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float, Float32

# the confidence from which a hit counts as a find. Chosen on nine labelled collections with half of their classes taken
# out, and held on eleven others: one absent name in twenty at most reached it; docs/search.md has the exceptions
SURE = 0.97
# fewer names than this give no distribution worth the name
_LEAST_NAMES = 50


@dataclass(frozen=True, slots=True)
class Gumbel:
    """A distribution of maxima."""

    location: float
    scale: float

    def share_below(self, value: float) -> float:
        """The share of what is drawn from it that lies below `value`, in [0, 1]."""
        return math.exp(-math.exp(min(700.0, -(value - self.location) / self.scale)))


@dataclass(frozen=True, slots=True)
class Null:
    """What absent things find: the cosine with the nearest picture, and what of it the mean does not foretell.

    That is `cosine - slope * mean`, where `mean` is the cosine of the text with `centre`, the mean of all vectors.
    """

    nearest: Gumbel
    beyond: Gumbel
    slope: float
    centre: tuple[float, ...]

    def confidence(self, cosine: float, text: Float32[np.ndarray, " dim"]) -> float:
        """The share of absent things that come less near than a picture of this cosine with `text`, in [0, 1]."""
        mean = float(text @ np.array(self.centre, np.float32))
        return min(self.nearest.share_below(cosine), self.beyond.share_below(cosine - self.slope * mean))


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


def measure(
    names: Float32[np.ndarray, "names dim"], blocks: Iterable[Float[np.ndarray, "_ dim"]]
) -> tuple[Float32[np.ndarray, " names"], Float32[np.ndarray, " dim"]]:
    """The largest cosine of each name over all blocks of unit rows, -1 where there is no row, and the rows' mean."""
    best = np.full(len(names), -1.0, np.float32)
    total, count = np.zeros(names.shape[1]), 0
    for block in blocks:
        rows = block.astype(np.float32)
        np.maximum(best, (names @ rows.T).max(axis=1, initial=-1.0), out=best)
        total += rows.sum(axis=0, dtype=np.float64)
        count += len(rows)
    return best, (total / max(1, count)).astype(np.float32)


def fit_null(names: Float32[np.ndarray, "names dim"], blocks: Iterable[Float[np.ndarray, "_ dim"]]) -> Null | None:
    """What the names of absent things find among unit rows; None where that tells nothing."""
    maxima, centre = measure(names, blocks)
    means = names @ centre
    spread = float(means.var())
    slope = float(np.cov(means, maxima, bias=True)[0, 1]) / spread if spread > 0.0 else 0.0
    nearest, beyond = fit_gumbel(maxima), fit_gumbel(maxima - slope * means)
    if nearest is None or beyond is None:
        return None
    return Null(nearest, beyond, slope, tuple(centre.tolist()))


def fit_gumbel(maxima: Float[np.ndarray, " names"]) -> Gumbel | None:
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
    return Gumbel(location=float(median) - scale * _reduced(0.5), scale=scale)


def _reduced(share: float) -> float:
    return -math.log(-math.log(share))
