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
from siglip.errors import Failure, InputError, clip
from siglip.keywords import LoadOptions, accepted, chosen_dtype
from siglip.model import SiglipForImageClassification
from siglip.pretrained import StrPath
from siglip.processing import ImageInput, SiglipImageProcessor
from siglip.streaming import Pace, PictureStream, check_many, checked_batch_size

# the position of a picture and its numbers, or what went wrong
Classified = tuple[int, Float32[np.ndarray, " numbers"]] | Failure
# what makes probabilities of the numbers that the last layer gives
FUNCTIONS = ("softmax", "sigmoid", "none")


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

    def stream_probabilities(
        self, items: Iterable[ImageInput], *, function: str | None = None, **pace: Unpack[Pace]
    ) -> Generator[Classified, None, None]:
        """Yield (position, probabilities in the order of `labels`) or a Failure for each picture, in order.

        The probabilities of a picture add up to 1, unless the model was trained for several labels a picture. The
        scores of a regression are given as they are. Another `function` makes other numbers of the same scores. `pace`
        is that of Embedder.stream_images. Raises InputError for a single picture.
        """
        check_many(items)
        if function is not None and function not in FUNCTIONS:
            raise InputError(f"function is one of {', '.join(FUNCTIONS)}, got {clip(repr(function))}")
        usual: dict[str | None, str] = {"multi_label_classification": "sigmoid", "regression": "none"}
        chosen = function or usual.get(self.model.problem_type, "softmax")
        return self._pictures.stream(items, lambda pixels: self._scores(pixels, chosen), **pace)

    def stream_images(self, items: Iterable[ImageInput], **pace: Unpack[Pace]) -> Generator[Classified, None, None]:
        """Yield (position, unit vector) or a Failure: the mean of the patch tokens, which the classifier reads."""
        check_many(items)
        return self._pictures.stream(items, self._vectors, **pace)

    @torch.inference_mode()
    def _scores(
        self, pixels: UInt8[np.ndarray, "batch size size_ 3"], function: str
    ) -> Float32[np.ndarray, "batch classes"]:
        logits = self._copy.classifier(self._features(pixels)).float()
        if function != "none":
            logits = logits.sigmoid() if function == "sigmoid" else logits.softmax(dim=1)
        return logits.cpu().numpy()

    @torch.inference_mode()
    def _vectors(self, pixels: UInt8[np.ndarray, "batch size size_ 3"]) -> Float32[np.ndarray, "batch dim"]:
        return F.normalize(self._features(pixels).float(), dim=-1).cpu().numpy()

    def _features(self, pixels: UInt8[np.ndarray, "batch size size_ 3"]) -> Tensor:
        return self._copy.get_image_features(self.processor.normalize(torch.from_numpy(pixels).to(self.device)))
