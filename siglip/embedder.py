"""Pictures or texts -> Embeddings (f32[n, d] unit rows, where they came from, what failed), on any device.

Pictures are decoded in threads while the tower computes, a bounded number ahead. Whoever decodes by itself (a service,
an index) gives pixels to `encode_pixels`. Everything that needs vectors stands on this file.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from typing import Any, Unpack, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from tqdm import tqdm

from siglip.checkpoints import files_key, fingerprint, remembered_fingerprint
from siglip.devices import find_device, find_dtype, for_inference
from siglip.embeddings import Embeddings, Kind, Maker
from siglip.errors import Failure, InputError, PreparationError, ShapeError, clip, warn
from siglip.keywords import EmbedOptions, LoadOptions, accepted, agreed, chosen_dtype
from siglip.model import SiglipModel
from siglip.pretrained import StrPath
from siglip.processing import ImageInput, SiglipProcessor, image_name
from siglip.streaming import Pace, PictureStream, check_many, checked_batch_size

# labels kept between calls: 12 MB of vectors at width 768
_KEPT_LABELS = 4096
# prompts encoded before they are averaged, which bounds memory for many labels times many templates
_PROMPTS_AT_ONCE = 2048
_OPTIONS = ("device", "dtype", "batch_size", "reduced_decode")
# what keywords of sentence-transformers may say, since it happens anyway
_HAPPENS: dict[str, tuple[bool | str, ...]] = {
    "normalize_embeddings": (True,),
    "convert_to_numpy": (True,),
    "convert_to_tensor": (False,),
    "precision": ("float32",),
}

# vectors as they come from this file, or rows from anywhere else; a single one is one row
Vectors = Embeddings | Float[np.ndarray, "..."] | Float[Tensor, "..."] | Sequence[Sequence[float]] | Sequence[float]
# told the number of items just done; True: a bar on stderr
Progress = Callable[[int], object] | bool
# the position of an input and its unit vector, or what went wrong
Embedded = tuple[int, Float32[np.ndarray, " dim"]] | Failure


class Embedder:
    """A model and its processor, ready to embed. The given model stays as it is: device and dtype apply to a copy.

    `device`: "auto" is the first GPU, else the CPU; also a number, a name or a torch.device. `dtype`: "auto" is
    bfloat16 where the processor computes in it (CUDA, AVX512-BF16, AMX), else float32; normalisation and logits are
    float32 always. `batch_size` is pictures or texts per pass. `reduced_decode` decodes JPEGs much larger than the
    tower's input at a fraction of their size; docs/speed.md says what that changes. Make a new Embedder after
    changing the weights of `model`. Safe to use from several threads. A picture given as a web address is fetched.

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
        batch_size = checked_batch_size(batch_size)
        self.model = model
        self.processor = processor
        self.device = find_device(device)
        self.dtype = find_dtype(dtype, self.device)
        self.batch_size = batch_size
        self.reduced_decode = reduced_decode
        self._towers = for_inference(model, self.device, self.dtype)
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self.maker = Maker("a model in memory", partial(fingerprint, model, processor))
        self._pictures = PictureStream(processor.image_processor, batch_size=batch_size, reduced=reduced_decode)

    @classmethod
    def from_pretrained(
        cls,
        source: StrPath,
        *,
        device: torch.device | str | int = "auto",
        dtype: torch.dtype | str | None = None,
        batch_size: int = 32,
        reduced_decode: bool = False,
        **options: Unpack[LoadOptions],
    ) -> "Embedder":
        """The Embedder of "nano", a local folder, or a hub name "owner/name".

        Raises CheckpointError for unreadable files, DownloadError if a hub name cannot be fetched, and as the class.
        """
        hub = accepted(options, "Embedder.from_pretrained", known=_OPTIONS)
        found = chosen_dtype(dtype, hub.pop("dtype", None)) or "auto"
        # before gigabytes are read for what cannot be
        device, batch_size = find_device(device), checked_batch_size(batch_size)
        found = find_dtype(found, device)
        embedder = cls(
            SiglipModel.from_pretrained(source, **hub),
            SiglipProcessor.from_pretrained(source, **hub),
            device=device,
            dtype=found,
            batch_size=batch_size,
            reduced_decode=reduced_decode,
        )
        compute = partial(fingerprint, embedder.model, embedder.processor)
        files = files_key(source, **hub)  # if it is worth remembering
        embedder.maker = Maker(str(source), partial(remembered_fingerprint, files, compute) if files else compute)
        return embedder

    @property
    def fingerprint(self) -> str:
        """Hex digest of weights, configuration and preparation: the same on every device and in every dtype.

        Computed when first asked for. Of large files it is remembered, see `files_key`.
        """
        return self.maker.fingerprint

    @torch.inference_mode()
    def encode_pixels(self, pixels: UInt8[np.ndarray, "batch size size_ 3"]) -> Float32[np.ndarray, "batch dim"]:
        """Unit vectors of squares made by `processor.image_processor.pixels`, in one pass. Raises ShapeError."""
        size = self.processor.image_processor.settings.image_size
        if pixels.shape[1:3] != (size, size):
            raise ShapeError(f"this model takes pixels [batch, {size}, {size}, 3], got {list(pixels.shape)}")
        pixel_values = self.processor.image_processor.normalize(torch.from_numpy(pixels).to(self.device))
        return _unit(self._towers.get_image_features(pixel_values))

    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "batch dim"]:
        """Unit vectors of texts, in one pass. Raises PreparationError naming the first that is not a text."""
        return self._text_vectors(list(texts))

    def embed_images(
        self,
        items: Iterable[ImageInput],
        *,
        progress: Progress = False,
        batch_size: int | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        """Embed pictures; those that cannot be read are reported in `failures` and the others go on.

        `progress` is called with the number of pictures just done; True shows a bar. This call may have another
        `batch_size`. Of sentence-transformers' keywords `show_progress_bar` is honoured, and those that ask for
        float32 arrays of unit length may stand. Raises InputError for a single picture, and for other keywords.
        """
        check_many(items)
        progress = _asked(progress, options, "embed_images")
        names: list[str] = []

        def noted() -> Generator[ImageInput]:
            for index, item in enumerate(items):
                names.append(image_name(item, index))
                yield item

        count = len(items) if isinstance(items, Sized) else None
        found = self._pictures.stream(noted(), self.encode_pixels, batch_size=batch_size)
        with _progress(progress, count, "picture") as done:
            return self._gathered(found, names, "image", done)

    def embed_texts(
        self,
        items: Iterable[str],
        *,
        progress: Progress = False,
        batch_size: int | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        """Embed texts, equal ones once; what is not a text is reported in `failures`.

        Keywords are those of embed_images. Raises InputError for a single text, and for other keywords.
        """
        progress = _asked(progress, options, "embed_texts")
        size = self.batch_size if batch_size is None else checked_batch_size(batch_size)
        if isinstance(items, str):
            raise InputError(f"embed_texts takes a list of texts, got the single text {clip(repr(items))}; pass [text]")
        texts = list(items)
        self.processor.tokenizer.warn_of_loss(texts)
        with _progress(progress, len(texts), "text") as done:
            return self._gathered(self._stream_texts(texts, size), texts, "text", done)

    def stream_images(self, items: Iterable[ImageInput], **pace: Unpack[Pace]) -> Generator[Embedded, None, None]:
        """Yield (position, unit vector) or a Failure for each picture, in order; `items` need not end.

        At most two batches more are taken from `items` than were yielded, in the caller's thread; do not change a
        picture before its result has come. Closing the generator stops all work. `pace` may set another `batch_size`,
        and the `timeout_s` of web addresses. Raises InputError for a single picture.
        """
        check_many(items)
        return self._pictures.stream(items, self.encode_pixels, **pace)

    def embed_labels(
        self, labels: Sequence[str], templates: str | Sequence[str] | None = None
    ) -> Float32[np.ndarray, "labels dim"]:
        """Unit vectors of labels put in place of "{}" in each template: the mean over templates, normalised again.

        As in the paper's zero-shot evaluation (big_vision, evaluators/proj/image_text/discriminative_classifier.py).
        Without `templates`, those of the checkpoint: `processor.templates`.
        The vectors of the latest labels are kept for later calls. Raises InputError for no label, no template, a
        template without "{}", and a label that is not a text.
        """
        if isinstance(labels, str) or not labels:
            raise InputError(f"expected a list of at least one text, got {clip(repr(labels))}")
        templates = _checked_templates(self.processor.templates if templates is None else templates)
        found = {label: vector for label in labels if (vector := self._kept.get((label, templates))) is not None}
        missing = [label for label in dict.fromkeys(labels) if label not in found]
        _warn_of_odd_labels(labels)
        tokenizer = self.processor.tokenizer
        told = tokenizer.warn_of_loss(missing)
        if templates != ("{}",):
            # labels that fit may be cut by their templates
            tokenizer.warn_of_loss(_prompts([label for label in missing if label not in told], templates))
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

    def new_labels(self, labels: Sequence[str], templates: str | Sequence[str] | None = None) -> list[str]:
        """Those whose vectors `embed_labels` would have to compute, since it has not kept them; each once."""
        templates = _checked_templates(self.processor.templates if templates is None else templates)
        return [label for label in dict.fromkeys(labels) if (label, templates) not in self._kept]

    def similarity(self, rows: Vectors, columns: Vectors) -> Float32[np.ndarray, "rows columns"]:
        """Cosines of all pairs of unit vectors, of pictures or texts alike; one vector alone is one row.

        Raises ShapeError if the widths differ, InputError for vectors that are known to be another model's.
        """
        left, right = self._own(rows), self._own(columns)
        if left.shape[1] != right.shape[1]:
            raise ShapeError(
                f"these vectors are {left.shape[1]} wide and those {right.shape[1]}; embed both with the same model"
            )
        return left @ right.T

    def logits(self, image_vectors: Vectors, text_vectors: Vectors) -> Float32[np.ndarray, "images texts"]:
        """Logits t * <image, text> + b of unit vectors; rows are images. Raises as `similarity`."""
        scale, bias = (
            value.detach().float().cpu().numpy() for value in (self.model.logit_scale.exp(), self.model.logit_bias)
        )
        return self.similarity(image_vectors, text_vectors) * scale + bias

    def probabilities(self, image_vectors: Vectors, text_vectors: Vectors) -> Float32[np.ndarray, "images texts"]:
        """The sigmoid of the logits: how likely each pair belongs together, each for itself."""
        return torch.from_numpy(self.logits(image_vectors, text_vectors)).sigmoid().numpy()

    def _own(self, vectors: Vectors) -> Float32[np.ndarray, "_ _"]:
        """Vectors as rows, unless they are known to be another model's."""
        maker = vectors.maker if isinstance(vectors, Embeddings) else None
        if maker is not None and maker is not self.maker and maker.fingerprint != self.fingerprint:
            raise InputError(
                f"these vectors were made by the model {maker.fingerprint}, this one is {self.fingerprint}; "
                "embed both with the same model"
            )
        return _rows(vectors)

    def _gathered(
        self, results: Iterable[Embedded], names: list[Any], kind: Kind, done: Callable[[int], object]
    ) -> Embeddings:
        good: list[tuple[int, np.ndarray]] = []
        failures: list[Failure] = []
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                good.append(result)
            done(1)
        none = np.zeros((0, self.model.config.vision_config.hidden_size), dtype=np.float32)
        vectors = np.stack([vector for _, vector in good]) if good else none
        indices = np.array([index for index, _ in good], dtype=np.int64)
        return Embeddings(vectors, indices, tuple(failures), tuple(names[index] for index in indices), kind, self.maker)

    # what is given as texts may hold something else, which the tokenizer refuses item by item
    def _stream_texts(self, texts: list[Any], batch_size: int) -> Generator[Embedded, None, None]:
        unique = list(dict.fromkeys(texts))
        encoded: dict[Any, np.ndarray | PreparationError] = {}
        for index, text in enumerate(texts):
            while text not in encoded:
                block = unique[len(encoded) : len(encoded) + batch_size]
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
    def _text_vectors(self, texts: list[Any]) -> Float32[np.ndarray, "batch dim"]:
        input_ids = self.processor.tokenizer(texts, return_tensors="pt")["input_ids"]
        return _unit(self._towers.get_text_features(input_ids.to(self.device)))

    def _ensemble(self, labels: list[str], templates: tuple[str, ...]) -> Float32[np.ndarray, "labels dim"]:
        texts = _prompts(labels, templates)
        prompts = self._gathered(self._stream_texts(texts, self.batch_size), texts, "text", lambda _: None)
        if prompts.failures:
            raise InputError(f"label {prompts.failures[0].name}: {prompts.failures[0].reason}")
        vectors = torch.from_numpy(prompts.vectors).unflatten(0, (len(labels), len(templates)))
        return F.normalize(vectors.mean(dim=1), dim=-1).numpy()


def _asked(progress: Progress, options: EmbedOptions, where: str) -> Progress:
    """Which progress is shown, by either name; the other options must say what happens."""
    bar = options.pop("show_progress_bar", None)
    agreed(options, _HAPPENS, where, known=("progress", "batch_size", "show_progress_bar"))
    return progress or bool(bar)


def _rows(vectors: Vectors) -> Float32[np.ndarray, "_ _"]:
    """Vectors from anywhere as an array, also lists, and tensors on another device."""
    if isinstance(vectors, Embeddings):
        return vectors.vectors
    if isinstance(vectors, Tensor):
        vectors = vectors.detach().float().cpu().numpy()
    try:
        found = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise InputError(f"expected rows of numbers, got {clip(repr(vectors))}: {error}") from error
    if found.ndim != 2:
        raise ShapeError(f"expected vectors [rows, dim], got {list(found.shape)}")
    return found


def _prompts(labels: Sequence[str], templates: tuple[str, ...]) -> list[str]:
    return [template.replace("{}", label) for label in labels for template in templates]


def _warn_of_odd_labels(labels: Sequence[Any]) -> None:
    """Say it where one label looks like several that were written with commas."""
    joined = [label for label in labels if isinstance(label, str) and re.search(r"\S,\S", label)]
    if not joined and len(labels) == 1 and isinstance(labels[0], str) and "," in labels[0]:
        joined = [labels[0]]
    if joined:
        warn(f"{clip(repr(joined[0]))} is taken as one label, commas and all; give several labels one by one")


@contextmanager
def _progress(progress: Progress, total: int | None, unit: str) -> Generator[Callable[[int], object]]:
    """What is told the number of items just done: nobody, a bar, or the caller."""
    if progress is not True:
        yield progress or (lambda _: None)
        return
    with tqdm(total=total, unit=f" {unit}", dynamic_ncols=True) as bar:
        yield bar.update


def _unit(features: Tensor) -> Float32[np.ndarray, "batch dim"]:
    return F.normalize(features.float(), dim=-1).cpu().numpy()


def _checked_templates(given: Any) -> tuple[str, ...]:
    templates: tuple[Any, ...] = (
        (given,) if not isinstance(given, Iterable) or isinstance(given, str) else tuple(cast(Iterable[Any], given))
    )
    if not templates:
        raise InputError('expected at least one template such as "This is a photo of {}.", got none')
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise InputError(
                f"template {clip(repr(template))} has no {{}} where the label goes; write for example 'a photo of {{}}'"
            )
    return templates
