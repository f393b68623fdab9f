"""Cosines of everyday words with a library's pictures -> how sure a hit is: what absent words find there.

A word that is in no picture still has a nearest picture. How near it comes depends on the model and grows with the
library. So a thousand everyday words are asked, and the cosine of each with its nearest picture is kept. Most words are
in no picture of a library, so the lower half of these numbers shows what absence looks like: its quartile and its
median give the Gumbel distribution that maxima of many numbers follow (Fisher and Tippett 1928). The upper half is not
used, since the words that are there lie in it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float, Float32

# fewer words or pictures than this give no distribution worth the name
_LEAST_WORDS = 50


@dataclass(frozen=True, slots=True)
class Null:
    """The Gumbel distribution of the cosine between an absent word and its nearest picture."""

    location: float
    scale: float

    def confidence(self, cosine: float) -> float:
        """The share of absent words whose nearest picture is farther than `cosine`, in [0, 1], by this fit."""
        return math.exp(-math.exp(min(700.0, -(cosine - self.location) / self.scale)))


@cache
def everyday_words() -> tuple[str, ...]:
    """A thousand nouns for things that can be seen, the most used first."""
    text = (resources.files("siglip") / "assets" / "search" / "words.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def nearest_cosines(
    words: Float32[np.ndarray, "words dim"], blocks: Iterable[Float[np.ndarray, "_ dim"]]
) -> Float32[np.ndarray, " words"]:
    """The largest cosine of each word over all blocks of unit rows; -1 where there is no row."""
    best = np.full(len(words), -1.0, np.float32)
    for block in blocks:
        np.maximum(best, (words @ block.astype(np.float32).T).max(axis=1, initial=-1.0), out=best)
    return best


def fit_null(maxima: Float[np.ndarray, " words"]) -> Null | None:
    """The distribution whose quartile and median are those of `maxima`; None where they tell nothing."""
    if len(maxima) < _LEAST_WORDS:
        return None
    quartile, median = np.quantile(maxima, [0.25, 0.5])
    # the quantile p of a Gumbel distribution is location - scale * log(-log p)
    scale = float(median - quartile) / (math.log(-math.log(0.25)) - math.log(-math.log(0.5)))
    if not scale > 0.0:
        return None
    return Null(location=float(median) + scale * math.log(-math.log(0.5)), scale=scale)
