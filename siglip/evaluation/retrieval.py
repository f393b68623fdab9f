"""Pictures with captions -> recall both ways, as in Flickr30k and COCO."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from siglip.embedder import Embedder
from siglip.errors import InputError
from siglip.evaluation.metrics import margins, ranks, recall_at
from siglip.evaluation.pictures import Pictures, Progress
from siglip.evaluation.result import Result, worst_mistakes

# scores made at a time, which bounds memory: 5,000 pictures and 25,000 captions would otherwise take gigabytes
_SCORES_AT_ONCE = 2**23


def evaluate_retrieval(
    embedder: Embedder,
    pictures: Pictures,
    *,
    all_captions: bool = False,
    num_mistakes: int = 40,
    progress: Progress | None = None,
) -> Result:
    """Recall at 1, 5 and 10 of finding a picture's caption and a caption's picture among all.

    `all_captions` asks with every caption of a picture, else with its main one. Scores are cosines; a caption belongs
    to the pictures it was given to, several if it was given to several. `progress` gets the number of texts just done.
    """
    texts = distinct_texts(pictures, all_captions=all_captions)
    _, texts_of, pictures_of = matches([captions if all_captions else captions[:1] for captions in pictures.captions])
    embedded = embedder.embed_texts(texts, progress=progress or False)
    if embedded.failures:
        raise InputError(f"caption {embedded.failures[0].name} cannot be encoded: {embedded.failures[0].reason}")
    to_text, by_how_much = search(pictures.vectors, embedded.vectors, texts_of)
    to_image, _ = search(embedded.vectors, pictures.vectors, pictures_of)
    ways = {"image_to_text": to_text, "text_to_image": to_image}
    return Result(
        task="retrieval",
        numbers={f"{way}/{name}": share for way, found in ways.items() for name, share in recall_at(found).items()},
        counts={"pictures": len(pictures), "texts": len(texts), "broken": len(pictures.broken)},
        settings={"captions": "all" if all_captions else "main"},
        mistakes=worst_mistakes(
            pictures,
            by_how_much,
            texts,
            lambda row: (embedded.vectors @ pictures.vectors[row], texts_of[row]),
            num_mistakes,
        ),
    )


def distinct_texts(pictures: Pictures, *, all_captions: bool) -> list[str]:
    """The captions that are asked with, each once."""
    return list(dict.fromkeys(text for given in pictures.captions for text in (given if all_captions else given[:1])))


def matches(given: Sequence[Sequence[str]]) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Of the captions of each picture: where each distinct text comes first, counted along all of them; the numbers of
    each picture's texts; and the pictures of each text. Texts are numbered in the order they come.
    """
    number: dict[str, int] = {}
    first: list[int] = []
    pictures_of: list[list[int]] = []
    texts_of: list[list[int]] = []
    seen = 0
    for picture, captions in enumerate(given):
        for text in captions:
            if text not in number:
                number[text] = len(number)
                first.append(seen)
                pictures_of.append([])
            pictures_of[number[text]].append(picture)
            seen += 1
        texts_of.append([number[text] for text in captions])
    return first, texts_of, pictures_of


def search(
    queries: Float32[np.ndarray, "queries dim"], items: Float32[np.ndarray, "items dim"], right: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Place of each query's best right item, and how far the best wrong one is above it; there may be no query."""
    step = max(1, _SCORES_AT_ONCE // len(items))
    places: list[np.ndarray] = []
    above: list[np.ndarray] = []
    for start in range(0, max(1, len(queries)), step):
        scores = queries[start : start + step] @ items.T
        relevant = np.zeros(scores.shape, dtype=bool)
        for row, own in enumerate(right[start : start + step]):
            relevant[row, own] = True
        places.append(ranks(scores, relevant))
        above.append(margins(scores, relevant))
    return np.concatenate(places), np.concatenate(above)
