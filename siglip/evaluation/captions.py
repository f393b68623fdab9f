"""Captions and their references -> CIDEr-D, BLEU-1 to 4 and ROUGE-L, as the COCO caption evaluation computes them.

Numbers equal those of the reference implementations to rounding, without their Java. Sources: Vedantam et al. 2015
(CIDEr), Papineni et al. 2002 (BLEU), Lin 2004 (ROUGE-L), with the details of github.com/tylin/coco-caption.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from siglip.errors import InputError

Grams = Counter[tuple[str, ...]]

_BETA = 1.2  # weight of recall in ROUGE-L
_SIGMA = 6.0  # width of CIDEr-D's penalty for another length

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_IN_TWO = {"cannot": "can not", "gonna": "gon na", "wanna": "wan na", "gotta": "got ta", "gimme": "gim me",
           "lemme": "lem me", "'tis": "'t is", "'twas": "'t was"}  # fmt: skip
_ABBREVIATIONS = (
    "mr mrs ms dr prof gen sen rep gov lt col capt sgt jr sr st ave blvd rd mt co corp inc ltd etc vs "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
_TOKEN = re.compile(
    "|".join(
        (
            r"https?://\S+",
            r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
            r"<[a-z]+>",
            r"(?<!\w)(?:[a-z]\.){2,}[a-z]?(?!\w)",
            rf"(?<!\w)(?:{_ABBREVIATIONS.replace(' ', '|')})\.",
            r"(?<!\w)no\.(?=\s*\d)",
            r"\d{1,2}:\d\d",
            r"\d+(?:,\d\d\d)+",
            r"(?<!\w)'t(?:is|was)(?!\w)",
            r"(?<!\w)'n'(?!\w)",
            r"(?<!\w)'\d0s(?!\w)",
            r"(?<!\w)y'(?=all(?!\w))",
            r"(?<!\w)(?:o'[a-z]+|d'ye)(?!\w)",
            r"c\+\+",
            r"[a-z]+&[a-z]+",
            r"[a-z]+(?=n't(?!\w))",
            r"n't(?!\w)",
            r"(?<=\w)'(?:s|re|ve|ll|d|m)(?!\w)",
            r"[#@][a-z_]\w*",
            r"\w+(?:(?:[-./]|\\/)\w+)*",
            r"[?!]{2,}",
            r"[()\[\]{}$%&#@+=*/\\^~|<>]",
        )
    )
)
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'"})


def ptb_tokens(text: str) -> list[str]:
    """Lower-case words of a caption, nearly as Stanford's PTB tokenizer cuts them, punctuation left out.

    Equal to it on the captions of its tests here; rare names, codes and abbreviations may be cut otherwise.
    """
    found = (match.group() for match in _TOKEN.finditer(text.translate(_QUOTES).lower()))
    return [part for token in found for part in _BRACKETS.get(token, _IN_TWO.get(token, token)).split()]


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Over all pictures; `each` is CIDEr-D of every picture. CIDEr-D goes from 0 to 10, the others to 1."""

    cider: float
    bleu: tuple[float, float, float, float]
    rouge_l: float
    each: dict[str, float]


def score_captions(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CaptionScores:
    """Tokenise and score a caption for each key of `references`, which holds all human captions of that picture.

    CIDEr-D weighs words by how many of these pictures use them, so scores of two selections cannot be compared.
    Raises InputError if the keys differ or a picture has no reference.
    """
    if not references or captions.keys() != references.keys() or not all(references.values()):
        raise InputError(
            f"each of the {len(references)} pictures needs one caption and at least one reference, got "
            f"{len(captions)} captions"
        )
    words = {key: ptb_tokens(text) for key, text in captions.items()}
    targets = {key: [ptb_tokens(text) for text in texts] for key, texts in references.items()}
    return score_tokens(words, targets)


def score_tokens(
    captions: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[Sequence[str]]]
) -> CaptionScores:
    """The same for captions that are lists of words already."""
    each = cider_d(captions, references)
    pairs = [(captions[key], references[key]) for key in references]
    rouge = [rouge_l(caption, targets) for caption, targets in pairs]
    return CaptionScores(sum(each.values()) / len(each), bleu(pairs), sum(rouge) / len(rouge), each)


def cider_d(
    captions: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, float]:
    """CIDEr-D of each picture: similarity of n-gram counts weighted by rarity, cut at the reference's counts."""
    pictures = len(references)
    used: Counter[tuple[str, ...]] = Counter()
    for targets in references.values():
        used.update({gram for target in targets for n in range(1, 5) for gram in _grams(target, n)})

    def vector(words: Sequence[str], n: int) -> dict[tuple[str, ...], float]:
        rarity = math.log(pictures)
        return {gram: count * (rarity - math.log(max(1, used[gram]))) for gram, count in _grams(words, n).items()}

    def similarity(words: Sequence[str], target: Sequence[str]) -> float:
        total = 0.0
        # the reference implementation takes the number of bigrams for the length
        length_gap = max(0, len(words) - 1) - max(0, len(target) - 1)
        for n in range(1, 5):
            ours, theirs = vector(words, n), vector(target, n)
            norms = _norm(ours) * _norm(theirs)
            if norms:
                shared = sum(
                    min(weight, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, weight in ours.items()
                )
                total += shared / norms * math.exp(-(length_gap**2) / (2 * _SIGMA**2))
        return total / 4

    return {
        key: 10.0 * sum(similarity(captions[key], target) for target in targets) / len(targets)
        for key, targets in references.items()
    }


def bleu(pairs: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]]) -> tuple[float, float, float, float]:
    """BLEU-1 to 4 of a corpus; the length that counts is that of the reference closest to the caption's."""
    matches, guesses = [0] * 4, [0] * 4
    length = target_length = 0
    for caption, targets in pairs:
        length += len(caption)
        target_length += min((abs(len(target) - len(caption)), len(target)) for target in targets)[1]
        for n in range(1, 5):
            most: Grams = Counter()
            for target in targets:
                most |= _grams(target, n)
            guesses[n - 1] += max(0, len(caption) - n + 1)
            matches[n - 1] += (_grams(caption, n) & most).total()
    # the two small numbers are those of the reference implementation
    ratio = (length + 1e-15) / (target_length + 1e-9)
    penalty = 1.0 if ratio >= 1.0 else math.exp(1.0 - 1.0 / ratio)
    product = 1.0
    scores: list[float] = []
    for n in range(4):
        product *= (matches[n] + 1e-15) / (guesses[n] + 1e-9)
        scores.append(product ** (1 / (n + 1)) * penalty)
    return scores[0], scores[1], scores[2], scores[3]


def rouge_l(caption: Sequence[str], targets: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of one caption: the longest common subsequence, best precision and best recall each for itself."""
    if not caption:
        return 0.0
    common = [_longest_common(caption, target) for target in targets]
    precision = max(common) / len(caption)
    recall = max(length / max(1, len(target)) for length, target in zip(common, targets, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _grams(words: Sequence[str], n: int) -> Grams:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def _norm(vector: Mapping[tuple[str, ...], float]) -> float:
    return math.sqrt(sum(weight**2 for weight in vector.values()))


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        before = row
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if word == other else max(before[place + 1], row[-1]))
    return row[-1]
