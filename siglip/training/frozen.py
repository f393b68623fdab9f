"""A locked image tower and a source -> what it says of the pictures, in a memory-mapped file, once for all runs.

Of a pair of towers these are unit vectors, of a model that writes they are patch tokens in float16. The file is named
after the weights, the preparation of pictures and the data: other ones, another file. A flag for each sample says
whether its row is there, so filling it goes on where it was stopped, with any number of processes.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from siglip.checkpoints import fingerprint
from siglip.data import LoaderSettings, Source, Subset
from siglip.distributed import all_gather_ints, rank
from siglip.files import replacing
from siglip.model import PaliGemmaForConditionalGeneration, SiglipModel
from siglip.processing import AnyProcessor
from siglip.training.passes import shared_pass

_DONE, _BROKEN = 1, 2


class ImageCache:
    """Vectors or patch tokens of a source's pictures; after `fill`, `subset` and `rows` may be used.

    `folder` must be the same place for all processes.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        model: SiglipModel | PaliGemmaForConditionalGeneration,
        processor: AnyProcessor,
    ) -> None:
        settings = processor.image_processor.settings
        self._tower = model.vision_model if isinstance(model, SiglipModel) else model.vision_tower
        parts = [fingerprint(self._tower), repr(settings), source.fingerprint()]
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
        self._source, self._model, self._processor = source, model, processor
        self._path = folder / f"{key}.vectors"
        self._vectors = np.empty((0, 0), np.float32)
        self._good = np.empty(0, np.int64)

    def subset(self) -> Subset:
        """The samples whose pictures could be read."""
        return Subset(self._source, self._good)

    def rows(self, indices: Int64[Tensor, " batch"]) -> Float[Tensor, "batch dim"] | Float[Tensor, "batch patches dim"]:
        """Vectors or patch tokens of samples of `subset()`, by their number there."""
        return torch.from_numpy(self._vectors[self._good[indices.numpy()]])

    def fill(self, settings: LoaderSettings, device: torch.device, progress: Callable[[int], object]) -> None:
        """Compute what is missing, each process its share; `progress` gets the number of samples just done."""
        if rank() == 0 and not self._path.exists():
            with replacing(self._path) as temporary, temporary.open("wb") as file:
                file.truncate(
                    len(self._source) * (math.prod(self._shape) * self._dtype.itemsize + 1)
                )  # zeros that take no room yet
        _meet(device)
        vectors = np.memmap(self._path, self._dtype, "r+", shape=(len(self._source), *self._shape))
        # behind all vectors, one byte a sample
        flags = np.memmap(self._path, np.uint8, "r+", offset=vectors.nbytes)
        missing = np.flatnonzero(flags == 0)
        progress(len(self._source) - len(missing))
        _meet(device)  # all must have the same list before the first flag is written
        for places, rows in self._computed(missing, settings, device):
            vectors[places] = rows
            # before the flags: they must never promise what a crash has lost
            vectors.flush()
            flags[places] = _DONE
            progress(len(places))
        _meet(device)
        if rank() == 0:
            flags[flags == 0] = _BROKEN
            flags.flush()
        _meet(device)
        self._vectors, self._good = vectors, np.flatnonzero(flags == _DONE)

    @torch.inference_mode()
    def _computed(
        self, missing: Int64[np.ndarray, " missing"], settings: LoaderSettings, device: torch.device
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not len(missing):
            return
        self._tower.to(device).eval()
        for batch in shared_pass(Subset(self._source, missing), self._processor, settings):
            assert batch.pixels is not None
            pixel_values = self._processor.image_processor.normalize(batch.pixels.to(device))
            if isinstance(self._model, SiglipModel):
                said = F.normalize(self._model.get_image_features(pixel_values).float(), dim=-1)
            else:
                said = self._tower(pixel_values).last_hidden_state.float()
            yield missing[batch.indices.numpy()], said.cpu().numpy().astype(self._dtype)

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of what is kept of one picture."""
        vision = self._tower.config
        return (
            (vision.hidden_size,) if isinstance(self._model, SiglipModel) else (vision.num_patches, vision.hidden_size)
        )

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(np.float32 if isinstance(self._model, SiglipModel) else np.float16)


def _meet(device: torch.device) -> None:
    """Wait for all processes."""
    all_gather_ints([0], device)
