"""Embedder and a source of captioned pictures -> recall both ways."""

from collections.abc import Callable, Iterator

import numpy as np

from siglip.data import Source
from siglip.embedder import Embedder
from siglip.errors import BrokenSample, DataError
from siglip.evaluation.metrics import retrieval
from siglip.processing import ImageInput


def evaluate_retrieval(
    embedder: Embedder, source: Source, *, all_captions: bool = False, progress: Callable[[int], None] | None = None
) -> dict[str, float]:
    """Recall at 1, 5 and 10 of finding a picture's caption and a caption's picture among all of the source.

    `all_captions` asks with every caption of a picture, else with the main one. Pictures that cannot be read are left
    out and counted as `broken`. Scores are cosines; each caption belongs to the picture it came with and to no other.
    `progress` gets the number of pictures just done. Raises DataError if no picture is left.
    """
    captions: list[tuple[str, ...]] = []

    def pictures() -> Iterator[ImageInput]:
        for index in range(len(source)):
            try:
                sample = source.sample(index)
            except BrokenSample:
                continue
            captions.append(sample.captions if all_captions else sample.captions[:1])
            assert sample.image is not None
            yield sample.image

    images = embedder.embed_images(pictures(), progress=progress)
    if not len(images):
        raise DataError("none of the pictures could be read; `siglip data stats` says why")
    owners = [place for place, index in enumerate(images.indices) for _ in captions[index]]
    texts = embedder.embed_texts([text for index in images.indices for text in captions[index]])
    numbers = retrieval(images.vectors @ texts.vectors.T, np.array(owners))
    return {**numbers, "pictures": float(len(images)), "broken": float(len(source) - len(images))}
