"""Embedder and a source -> unit vectors of its pictures with what is known of each. All tasks begin here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from siglip.data import Sample, Source
from siglip.embedder import Embedder
from siglip.errors import BrokenSample, DataError
from siglip.processing import ImageInput

Progress = Callable[[int], object] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """The pictures that could be read: unit vectors, numbers in the source, names, captions, labels (-1: none)."""

    vectors: Float32[np.ndarray, "n dim"]
    indices: Int64[np.ndarray, " n"]
    names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    labels: Int64[np.ndarray, " n"]
    num_broken: int

    def __len__(self) -> int:
        return len(self.vectors)

    def labelled(self) -> "Pictures":
        """Those with a label. Raises DataError if there is none."""
        known = np.flatnonzero(self.labels >= 0)
        if not len(known):
            raise DataError("no picture has a class; this task needs class folders, or a label column or .cls entry")
        return self.at(known)

    def at(self, rows: Int64[np.ndarray, " rows"]) -> "Pictures":
        """Some of them."""
        return Pictures(
            vectors=self.vectors[rows],
            indices=self.indices[rows],
            names=tuple(self.names[row] for row in rows),
            captions=tuple(self.captions[row] for row in rows),
            labels=self.labels[rows],
            num_broken=self.num_broken,
        )


def embed_source(embedder: Embedder, source: Source, progress: Progress = None) -> Pictures:
    """Embed every picture of the source; broken ones are left out and counted.

    `progress` gets the number of samples just done. Raises DataError if no picture is left.
    """
    samples: list[Sample] = []
    places: list[int] = []

    def pictures() -> Iterator[ImageInput]:
        for index in range(len(source)):
            try:
                sample = source.sample(index)
            except BrokenSample:
                continue
            image = sample.image
            assert image is not None
            # the bytes of a picture are not needed once it is embedded
            samples.append(Sample(name=sample.name, image=None, captions=sample.captions, label=sample.label))
            places.append(index)
            yield image

    embedded = embedder.embed_images(pictures(), progress=None if progress is None else lambda count: progress(count))
    if not len(embedded):
        raise DataError(f"none of the {len(source)} pictures could be read; `siglip data stats` says why")
    good = [samples[index] for index in embedded.indices]
    return Pictures(
        vectors=embedded.vectors,
        indices=np.array(places, np.int64)[embedded.indices],
        names=tuple(sample.name for sample in good),
        captions=tuple(sample.captions for sample in good),
        labels=np.array([sample.label for sample in good], np.int64),
        num_broken=len(source) - len(good),
    )
