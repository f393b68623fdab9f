"""Pictures or texts -> Embeddings (f32[n, d] unit rows, where they came from, what failed), on any device.

Pictures are decoded in threads while the tower computes, a bounded number ahead. Everything that needs vectors
stands on this file.
"""

import copy
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor, nn

from siglip.checkpoints import fingerprint
from siglip.devices import find_device
from siglip.errors import Failure, InputError, PreparationError, ShapeError, UnreadableImage
from siglip.model import SiglipModel
from siglip.pretrained import HubOptions, StrPath
from siglip.processing import ImageInput, SiglipProcessor, image_name

# labels kept between calls: 12 MB of vectors at width 768
_KEPT_LABELS = 4096
# prompts encoded before they are averaged, which bounds memory for many labels times many templates
_PROMPTS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Embeddings:
    """Unit rows of the good inputs, the positions of those in the input, and the failures. Also reads as an array."""

    vectors: Float32[np.ndarray, "n dim"]
    indices: Int64[np.ndarray, " n"]
    failures: tuple[Failure, ...]

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        count, width = self.vectors.shape
        return f"Embeddings({count} vectors of width {width}, {len(self.failures)} failures)"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.vectors, dtype=dtype, copy=copy)


# the position of an input and its unit vector, or what went wrong
Result = tuple[int, Float32[np.ndarray, " dim"]] | Failure


class Embedder:
    """A model and its processor, ready to embed. The given model stays as it is: device and dtype apply to a copy.

    `device`: "auto" is the first GPU, else the CPU; also a number, a name or a torch.device. `dtype`: "auto" is
    bfloat16 where the processor computes in it (CUDA, AVX512-BF16, AMX), else float32; normalisation and logits are
    float32 always. `batch_size` is pictures or texts per pass. `reduced_decode` decodes JPEGs much larger than the
    tower's input at a fraction of their size; docs/speed.md says what that changes. Make a new Embedder after
    changing the weights of `model`. Safe to use from several threads.

    Raises InputError for a device that this machine does not have, or another dtype.
    """

    def __init__(
        self,
        model: SiglipModel,
        processor: SiglipProcessor,
        *,
        device: torch.device | str | int = "auto",
        dtype: torch.dtype | str = "auto",
        batch_size: int = 32,
        reduced_decode: bool = False,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.processor = processor
        self.device = find_device(device)
        self.dtype = _find_dtype(dtype, self.device)
        self.batch_size = batch_size
        self.reduced_decode = reduced_decode
        self._towers = _for_inference(model, self.device, self.dtype)
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        source: StrPath,
        *,
        device: torch.device | str | int = "auto",
        dtype: torch.dtype | str = "auto",
        batch_size: int = 32,
        reduced_decode: bool = False,
        **hub: Unpack[HubOptions],
    ) -> "Embedder":
        """The Embedder of "nano", a local folder, or a hub name "owner/name".

        Raises CheckpointError for unreadable files, DownloadError if a hub name cannot be had, and as the class.
        """
        device = find_device(device)  # before gigabytes are read for a device that is not there
        return cls(
            SiglipModel.from_pretrained(source, **hub),
            SiglipProcessor.from_pretrained(source, **hub),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            reduced_decode=reduced_decode,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of weights, configuration and preparation: the same on every device and in every dtype."""
        return fingerprint(self.model, self.processor)

    def embed_images(self, items: Iterable[ImageInput], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        """Embed pictures; those that cannot be read are reported in `failures` and the others go on.

        `progress` is called with the number of pictures just done. Raises InputError for a single picture.
        """
        return self._gathered(self.stream_images(items), progress)

    def embed_texts(self, items: Iterable[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        """Embed texts, equal ones once; what is no text is reported in `failures`.

        `progress` is called with the number of texts just done. Raises InputError for a single text.
        """
        if isinstance(items, str):
            raise InputError(f"embed_texts takes a list of texts, got the single text {items!r}; pass [text]")
        return self._gathered(self._stream_texts(list(items)), progress)

    def stream_images(self, items: Iterable[ImageInput]) -> Generator[Result, None, None]:
        """Yield (position, unit vector) or a Failure for each picture, in order; `items` need not end.

        At most two batches more are taken from `items` than were yielded, in the caller's thread; do not change a
        picture before its result has come. Closing the generator stops all work. Raises InputError for a single
        picture.
        """
        if is_one_picture(items):
            raise InputError(f"expected a list of pictures, got a single {type(items).__name__}; pass [picture]")
        return self._stream_images(items)

    def embed_labels(
        self, labels: Sequence[str], templates: str | Sequence[str] | None = None
    ) -> Float32[np.ndarray, "labels dim"]:
        """Unit vectors of labels put in place of "{}" in each template: the mean over templates, normalised again.

        As in the paper's zero-shot evaluation (big_vision, evaluators/proj/image_text/discriminative_classifier.py).
        Without `templates`, those of the checkpoint: `processor.templates`.
        The vectors of the latest labels are kept for later calls. Raises InputError for no label, no template, a
        template without "{}", and a label that is no text.
        """
        if isinstance(labels, str) or not labels:
            raise InputError(f"expected a list of at least one text, got {labels!r}")
        templates = _checked_templates(self.processor.templates if templates is None else templates)
        found = {label: vector for label in labels if (vector := self._kept.get((label, templates))) is not None}
        missing = [label for label in dict.fromkeys(labels) if label not in found]
        step = max(1, _PROMPTS_AT_ONCE // len(templates))
        for start in range(0, len(missing), step):
            block = missing[start : start + step]
            found.update(zip(block, self._ensemble(block, templates), strict=True))
        with self._lock:
            for label, vector in found.items():
                self._kept[label, templates] = vector
                self._kept.move_to_end((label, templates))
            while len(self._kept) > _KEPT_LABELS:
                self._kept.popitem(last=False)
        return np.stack([found[label] for label in labels])

    def logits(
        self, image_vectors: Float32[np.ndarray, "images dim"], text_vectors: Float32[np.ndarray, "texts dim_"]
    ) -> Float32[np.ndarray, "images texts"]:
        """Logits t * <image, text> + b of unit vectors; rows are images. Raises ShapeError if the widths differ."""
        if image_vectors.shape[-1] != text_vectors.shape[-1]:
            raise ShapeError(
                f"image vectors are {image_vectors.shape[-1]} wide and text vectors {text_vectors.shape[-1]}; "
                "embed both with the same model"
            )
        scale, bias = (
            value.detach().float().cpu().numpy() for value in (self.model.logit_scale.exp(), self.model.logit_bias)
        )
        return image_vectors @ text_vectors.T * scale + bias

    def probabilities(
        self, image_vectors: Float32[np.ndarray, "images dim"], text_vectors: Float32[np.ndarray, "texts dim_"]
    ) -> Float32[np.ndarray, "images texts"]:
        """The sigmoid of the logits: how likely each pair belongs together, each for itself."""
        return torch.from_numpy(self.logits(image_vectors, text_vectors)).sigmoid().numpy()

    def _gathered(self, results: Iterable[Result], progress: Callable[[int], None] | None) -> Embeddings:
        good: list[tuple[int, np.ndarray]] = []
        failures: list[Failure] = []
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                good.append(result)
            if progress is not None:
                progress(1)
        none = np.zeros((0, self.model.config.vision_config.hidden_size), dtype=np.float32)
        vectors = np.stack([vector for _, vector in good]) if good else none
        return Embeddings(vectors, np.array([index for index, _ in good], dtype=np.int64), tuple(failures))

    def _stream_images(self, items: Iterable[ImageInput]) -> Generator[Result, None, None]:
        source = enumerate(items)
        waiting: deque[Future[_Decoded]] = deque()
        pool = ThreadPoolExecutor(_cores(), thread_name_prefix="siglip-decode")
        try:
            while True:
                # one batch for the tower now, and one to be decoded meanwhile
                for index, item in islice(source, 2 * self.batch_size - len(waiting)):
                    waiting.append(pool.submit(self._decode, index, item))
                if not waiting:
                    return
                yield from self._embed_decoded(
                    [waiting.popleft().result() for _ in range(min(self.batch_size, len(waiting)))]
                )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _decode(self, index: int, item: ImageInput) -> "_Decoded":
        try:
            return index, self.processor.image_processor.pixels(item, reduced=self.reduced_decode)
        except UnreadableImage as error:
            return Failure(image_name(item, index), error.reason, index)

    def _embed_decoded(self, decoded: "list[_Decoded]") -> Generator[Result, None, None]:
        good = [result[1] for result in decoded if not isinstance(result, Failure)]
        vectors = iter(self._image_vectors(np.stack(good)) if good else ())
        for result in decoded:
            yield result if isinstance(result, Failure) else (result[0], next(vectors))

    # what is given as texts may hold something else, which the tokenizer refuses item by item
    def _stream_texts(self, texts: list[Any]) -> Generator[Result, None, None]:
        unique = list(dict.fromkeys(texts))
        encoded: dict[Any, np.ndarray | PreparationError] = {}
        for index, text in enumerate(texts):
            while text not in encoded:
                block = unique[len(encoded) : len(encoded) + self.batch_size]
                encoded.update(zip(block, self._encode(block), strict=True))
            vector = encoded[text]
            if isinstance(vector, PreparationError):
                yield Failure(f"{text!r:.60}", str(vector).removeprefix("text 0 "), index)
            else:
                yield index, vector

    def _encode(self, texts: list[Any]) -> "list[np.ndarray | PreparationError]":
        try:
            return list(self._text_vectors(texts))
        except PreparationError as error:
            return [error] if len(texts) == 1 else [vector for text in texts for vector in self._encode([text])]

    @torch.inference_mode()
    def _image_vectors(self, pixels: UInt8[np.ndarray, "batch size size 3"]) -> Float32[np.ndarray, "batch dim"]:
        pixel_values = self.processor.image_processor.normalize(torch.from_numpy(pixels).to(self.device))
        return _unit(self._towers.get_image_features(pixel_values))

    @torch.inference_mode()
    def _text_vectors(self, texts: list[Any]) -> Float32[np.ndarray, "batch dim"]:
        input_ids = self.processor.tokenizer(texts, return_tensors="pt")["input_ids"]
        return _unit(self._towers.get_text_features(input_ids.to(self.device)))

    def _ensemble(self, labels: list[str], templates: tuple[str, ...]) -> Float32[np.ndarray, "labels dim"]:
        prompts = self.embed_texts([template.replace("{}", label) for label in labels for template in templates])
        if prompts.failures:
            raise InputError(f"label {prompts.failures[0].name}: {prompts.failures[0].reason}")
        vectors = torch.from_numpy(prompts.vectors).unflatten(0, (len(labels), len(templates)))
        return F.normalize(vectors.mean(dim=1), dim=-1).numpy()


_Decoded = tuple[int, UInt8[np.ndarray, "size size 3"]] | Failure


def is_one_picture(value: object) -> bool:
    """Whether this is one picture, in any form a picture may have, rather than something that yields pictures."""
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim < 4
    return isinstance(value, str | bytes | Path | Image.Image) or hasattr(value, "read")


def _unit(features: Tensor) -> Float32[np.ndarray, "batch dim"]:
    return F.normalize(features.float(), dim=-1).cpu().numpy()


def _checked_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    if not templates:
        raise InputError('expected at least one template such as "This is a photo of {}.", got none')
    for template in templates:
        if "{}" not in template:
            raise InputError(
                f"template {template!r} has no {{}} where the label goes; write for example 'a photo of {{}}'"
            )
    return templates


def _find_dtype(dtype: torch.dtype | str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        raise InputError(f"dtype {dtype!r} is not one of 'auto', 'float32', 'bfloat16' and 'float16'")
    return found


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # older versions of PyTorch cannot say, and get float32
    features = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def _for_inference(model: SiglipModel, device: torch.device, dtype: torch.dtype) -> SiglipModel:
    """A copy in evaluation mode; its weights share memory with the model's wherever they need not change."""
    shared = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    return copy.deepcopy(model, memo=shared).eval().to(device=device, dtype=dtype)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
