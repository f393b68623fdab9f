"""Embedder and a source -> unit vectors of its pictures with what is known of each. All tasks begin here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int64

from siglip.classifier import Classifier
from siglip.data import Sample, Source
from siglip.embedder import Embedder
from siglip.errors import BrokenSample, DataError, Failure
from siglip.processing import ImageInput

# called with the number of items just done
Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """The pictures that could be read: unit vectors, numbers in the source, names, captions, labels (-1: none).

    `broken` are the others. Of a trained classifier, `vectors` are the probabilities of its classes.
    """

    vectors: Float32[np.ndarray, "n dim"]
    indices: Int64[np.ndarray, " n"]
    names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    labels: Int64[np.ndarray, " n"]
    broken: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    def labelled(self) -> "Pictures":
        """Those with a label. Raises DataError if there is none."""
        known = np.flatnonzero(self.labels >= 0)
        if not len(known):
            raise DataError("no picture has a class; this task needs class folders, or a label column or .cls entry")
        return self.at(known)

    def renumbered(self, numbers: Int64[np.ndarray, " labels"]) -> "Pictures":
        """With label i replaced by `numbers[i]`, as `match_labels` gives them. Raises DataError for a label beyond."""
        labels, known = self.labels.copy(), self.labels >= 0
        if labels.max(initial=-1) >= len(numbers):
            raise DataError(
                f"a picture has class {labels.max()}, counted from 0, but the data name {len(numbers)} classes"
            )
        labels[known] = numbers[labels[known]]
        return replace(self, labels=labels)

    def at(self, rows: Int64[np.ndarray, " rows"]) -> "Pictures":
        """Some of them."""
        return replace(
            self,
            vectors=self.vectors[rows],
            indices=self.indices[rows],
            names=tuple(self.names[row] for row in rows),
            captions=tuple(self.captions[row] for row in rows),
            labels=self.labels[rows],
        )


def embed_source(model: Embedder | Classifier, source: Source, progress: Progress | None = None) -> Pictures:
    """Embed every picture of the source; those that are `broken` are left out. Of a Classifier, rows are probabilities.

    `progress` gets the number of samples just done. Raises DataError if no picture is left, DownloadError.
    """
    samples: list[tuple[int, Sample]] = []
    broken: list[Failure] = []

    def pictures() -> Iterator[ImageInput]:
        for index in range(len(source)):
            try:
                sample = source.sample(index)
            except BrokenSample as error:
                broken.append(Failure(error.name, error.reason))
                if progress is not None:
                    progress(1)
                continue
            assert sample.image is not None
            # the bytes of a picture are not needed once it is embedded
            samples.append((index, replace(sample, image=None, facts={})))
            yield sample.image

    stream = model.stream_probabilities if isinstance(model, Classifier) else model.stream_images
    found: list[tuple[int, np.ndarray]] = []
    for item in stream(pictures()):
        if isinstance(item, Failure):
            broken.append(Failure(samples[item.index][1].name, item.reason))
        else:
            found.append(item)
        if progress is not None:
            progress(1)
    if not found:
        first = f", the first is {broken[0].name}: {broken[0].reason}" if broken else ""
        raise DataError(f"none of the {len(source)} pictures could be read{first}")
    good = [samples[place] for place, _ in found]
    return Pictures(
        vectors=np.stack([row for _, row in found]),
        indices=np.array([index for index, _ in good], np.int64),
        names=tuple(sample.name for _, sample in good),
        captions=tuple(sample.captions for _, sample in good),
        labels=np.array([sample.label for _, sample in good], np.int64),
        broken=tuple(broken),
    )
