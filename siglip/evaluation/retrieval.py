"""Pictures with captions -> recall both ways, as in Flickr30k and COCO."""

import numpy as np
from jaxtyping import Float32

from siglip.embedder import Embedder
from siglip.evaluation.metrics import retrieval
from siglip.evaluation.pictures import Pictures
from siglip.evaluation.result import Mistake, Result


def evaluate_retrieval(
    embedder: Embedder, pictures: Pictures, *, all_captions: bool = False, num_mistakes: int = 40
) -> Result:
    """Recall at 1, 5 and 10 of finding a picture's caption and a caption's picture among all.

    `all_captions` asks with every caption of a picture, else with its main one. Scores are cosines; a caption belongs
    to the pictures it was given to, several if it was given to several.
    """
    given = [captions if all_captions else captions[:1] for captions in pictures.captions]
    texts = list(dict.fromkeys(text for captions in given for text in captions))
    number = {text: index for index, text in enumerate(texts)}
    relevant = np.zeros((len(pictures), len(texts)), dtype=bool)
    for row, captions in enumerate(given):
        relevant[row, [number[text] for text in captions]] = True
    scores = pictures.vectors @ embedder.embed_texts(texts).vectors.T
    numbers = {**retrieval(scores, relevant), "pictures": float(len(pictures)), "texts": float(len(texts))}
    return Result(
        task="retrieval",
        numbers={**numbers, "broken": float(pictures.num_broken)},
        mistakes=_worst(pictures, scores, relevant, texts, num_mistakes),
    )


def _worst(
    pictures: Pictures, scores: Float32[np.ndarray, "images texts"], relevant: np.ndarray, texts: list[str], count: int
) -> tuple[Mistake, ...]:
    """Pictures whose best wrong caption beats their best right one by most."""
    wrong = np.where(relevant, -np.inf, scores)
    margin = wrong.max(axis=1) - np.where(relevant, scores, -np.inf).max(axis=1)
    return tuple(
        Mistake(
            index=int(pictures.indices[row]),
            name=pictures.names[row],
            expected=pictures.captions[row][0],
            found=tuple(texts[place] for place in np.argsort(-wrong[row])[:3]),
            margin=float(margin[row]),
        )
        for row in np.argsort(-margin)[:count]
        if margin[row] > 0
    )
