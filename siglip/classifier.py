"""Pictures -> the probability of each class a trained classifier knows, and the vectors it reads; on any device."""

from collections.abc import Generator, Iterable
from functools import cached_property
from typing import Unpack

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from siglip.checkpoints import fingerprint
from siglip.devices import find_device, find_dtype, for_inference
from siglip.errors import Failure
from siglip.keywords import LoadOptions, accepted, chosen_dtype
from siglip.model import SiglipForImageClassification
from siglip.pretrained import StrPath
from siglip.processing import ImageInput, SiglipImageProcessor
from siglip.streaming import PictureStream, check_many, checked_batch_size

# the position of a picture and its numbers, or what went wrong
Classified = tuple[int, Float32[np.ndarray, " numbers"]] | Failure


class Classifier:
    """A trained classifier and its image processor; `device`, `dtype` and `batch_size` are those of Embedder."""

    def __init__(
        self,
        model: SiglipForImageClassification,
        processor: SiglipImageProcessor,
        *,
        device: torch.device | str | int = "auto",
        dtype: torch.dtype | str = "auto",
        batch_size: int = 32,
    ) -> None:
        batch_size = checked_batch_size(batch_size)
        self.model = model
        self.processor = processor
        self.device = find_device(device)
        self.labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
        self._copy = for_inference(model, self.device, find_dtype(dtype, self.device))
        self._pictures = PictureStream(processor, batch_size=batch_size)

    @classmethod
    def from_pretrained(
        cls,
        source: StrPath,
        *,
        device: torch.device | str | int = "auto",
        dtype: torch.dtype | str | None = None,
        batch_size: int = 32,
        **options: Unpack[LoadOptions],
    ) -> "Classifier":
        """The Classifier of a folder such as `runs/x/export`, or of a hub name; raises as Embedder.from_pretrained."""
        hub = accepted(options, "Classifier.from_pretrained", known=("device", "dtype", "batch_size"))
        found = chosen_dtype(dtype, hub.pop("dtype", None)) or "auto"
        # before a download of what cannot be used
        device, batch_size = find_device(device), checked_batch_size(batch_size)
        found = find_dtype(found, device)
        return cls(
            SiglipForImageClassification.from_pretrained(source, **hub),
            SiglipImageProcessor.from_pretrained(source, **hub),
            device=device,
            dtype=found,
            batch_size=batch_size,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of weights, configuration and preparation."""
        return fingerprint(self.model, self.processor)

    def stream_probabilities(self, items: Iterable[ImageInput]) -> Generator[Classified, None, None]:
        """Yield (position, probabilities in the order of `labels`) or a Failure for each picture, in order.

        The probabilities of a picture add up to 1, unless the model was trained for several labels a picture. The
        scores of a regression are given as they are. Raises InputError for a single picture.
        """
        return self._stream(items, scores=True)

    def stream_images(self, items: Iterable[ImageInput]) -> Generator[Classified, None, None]:
        """Yield (position, unit vector) or a Failure: the mean of the patch tokens, which the classifier reads."""
        return self._stream(items, scores=False)

    def _stream(self, items: Iterable[ImageInput], *, scores: bool) -> Generator[Classified, None, None]:
        check_many(items)
        return self._pictures.stream(items, self._probabilities if scores else self._vectors)

    def _probabilities(self, pixels: UInt8[np.ndarray, "batch size size_ 3"]) -> Float32[np.ndarray, "batch classes"]:
        with torch.inference_mode():
            logits = self._copy.classifier(self._features(pixels)).float()
        kind = self.model.problem_type
        if kind != "regression":
            logits = logits.sigmoid() if kind == "multi_label_classification" else logits.softmax(dim=1)
        return logits.cpu().numpy()

    @torch.inference_mode()
    def _vectors(self, pixels: UInt8[np.ndarray, "batch size size_ 3"]) -> Float32[np.ndarray, "batch dim"]:
        return F.normalize(self._features(pixels).float(), dim=-1).cpu().numpy()

    def _features(self, pixels: UInt8[np.ndarray, "batch size size_ 3"]) -> Tensor:
        return self._copy.get_image_features(self.processor.normalize(torch.from_numpy(pixels).to(self.device)))
