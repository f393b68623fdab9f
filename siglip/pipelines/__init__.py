"""Pictures and words in, plain Python out: seven tasks under the names people know.

`pipeline(task, model)` gives one of the callables of this room. One picture gives one result, a list of pictures a
list, and a generator a generator, which reads at most two batches ahead and so works on input that never ends.
A picture that cannot be read raises UnreadableImage; in a stream it becomes a Failure in its place instead, since
an error would end the stream and lose the good pictures behind it.
"""

from typing import Any, Literal, Unpack, overload

import torch
from torch import nn

from siglip.captioner import Captioner
from siglip.classifier import Classifier
from siglip.embedder import Embedder
from siglip.errors import InputError, clip, did_you_mean
from siglip.keywords import LoadOptions, accepted, chosen_dtype
from siglip.model import SiglipForImageClassification, SiglipModel
from siglip.pipelines.comparing import (
    ImageClassification,
    ImageFeatureExtraction,
    ImageTextSimilarity,
    Score,
    ZeroShotImageClassification,
)
from siglip.pipelines.writing import (
    Answer,
    Candidate,
    GeneratedText,
    ImageTextToText,
    ImageToText,
    VisualQuestionAnswering,
    reranked,
)
from siglip.pretrained import StrPath
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer

__all__ = [
    "Answer",
    "Candidate",
    "GeneratedText",
    "ImageClassification",
    "ImageFeatureExtraction",
    "ImageTextSimilarity",
    "ImageTextToText",
    "ImageToText",
    "Score",
    "VisualQuestionAnswering",
    "ZeroShotImageClassification",
    "pipeline",
    "reranked",
]

_Maker = Embedder | Classifier | Captioner
# what does the work of a task, and what that is made of
_TASKS: dict[str, tuple[type, type[Embedder] | type[Classifier] | type[Captioner]]] = {
    "zero-shot-image-classification": (ZeroShotImageClassification, Embedder),
    "image-feature-extraction": (ImageFeatureExtraction, Embedder),
    "image-text-similarity": (ImageTextSimilarity, Embedder),
    "image-classification": (ImageClassification, Classifier),
    "image-to-text": (ImageToText, Captioner),
    "image-text-to-text": (ImageTextToText, Captioner),
    "visual-question-answering": (VisualQuestionAnswering, Captioner),
}


class PipelineOptions(LoadOptions, total=False):
    """Where and how to compute, as in Embedder (None: its default), and how to find a hub name."""

    device: torch.device | str | int | None
    dtype: torch.dtype | str | None
    batch_size: int | None
    image_processor: SiglipImageProcessor
    tokenizer: SiglipTokenizer
    processor: Any


@overload
def pipeline(
    task: Literal["image-classification"],
    model: StrPath | SiglipForImageClassification | Classifier,
    **options: Unpack[PipelineOptions],
) -> ImageClassification: ...
@overload
def pipeline(
    task: Literal["zero-shot-image-classification"],
    model: StrPath | SiglipModel | Embedder,
    **options: Unpack[PipelineOptions],
) -> ZeroShotImageClassification: ...
@overload
def pipeline(
    task: Literal["image-feature-extraction"],
    model: StrPath | SiglipModel | Embedder,
    **options: Unpack[PipelineOptions],
) -> ImageFeatureExtraction: ...
@overload
def pipeline(
    task: Literal["image-text-similarity"], model: StrPath | SiglipModel | Embedder, **options: Unpack[PipelineOptions]
) -> ImageTextSimilarity: ...
@overload
def pipeline(
    task: Literal["image-to-text"], model: StrPath | Captioner, **options: Unpack[PipelineOptions]
) -> ImageToText: ...
@overload
def pipeline(
    task: Literal["image-text-to-text"], model: StrPath | Captioner, **options: Unpack[PipelineOptions]
) -> ImageTextToText: ...
@overload
def pipeline(
    task: Literal["visual-question-answering"], model: StrPath | Captioner, **options: Unpack[PipelineOptions]
) -> VisualQuestionAnswering: ...
def pipeline(
    task: str,
    model: Any,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | str | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> Any:
    """The callable for a task: one of the seven classes above.

    "zero-shot-image-classification", "image-feature-extraction" and "image-text-similarity" compare;
    "image-classification" wants a trained classifier; "image-to-text", "image-text-to-text" and
    "visual-question-answering" write, and want a PaliGemma. `model` is "nano", which compares, or "nano-caption", which
    writes, a local folder, a hub name "owner/name", an Embedder, Classifier or Captioner, or a bare model together with
    its `processor`, or with its `image_processor` (and `tokenizer`). `device`, `dtype` and `batch_size` are those of
    Embedder; -1 is the CPU too. Raises InputError for another task, or for options beside an Embedder, which has its
    own; else as `from_pretrained`.
    """
    if task not in _TASKS:
        nearest = did_you_mean(task, _TASKS)
        hint = f"; did you mean {nearest!r}? " if nearest else ". "
        raise InputError(f"there is no task {clip(repr(task))}{hint}The tasks are {', '.join(_TASKS)}")
    parts = {name: options.pop(name) for name in ("processor", "image_processor", "tokenizer") if name in options}
    known = accepted(options, "pipeline", known=("device", "device_map", "dtype", "batch_size"))
    if (mapped := known.pop("device_map", None)) is not None:
        if device is not None:
            raise InputError(f"got device={clip(repr(device))} and device_map={clip(repr(mapped))}; give one of them")
        device = mapped
    dtype = chosen_dtype(dtype, known.pop("dtype", None))
    given = {"device": device, "dtype": dtype, "batch_size": batch_size, **known}
    if given["device"] == -1:
        given["device"] = "cpu"
    made, kind = _TASKS[task]
    return made(_prepared(model, parts, {name: value for name, value in given.items() if value is not None}, kind))


def _prepared(model: Any, parts: dict[str, Any], given: dict[str, Any], kind: Any) -> _Maker:
    """What works for a task: as given, of a bare model and the `parts` that prepare its input, or of a checkpoint."""
    name = kind.__name__
    if isinstance(model, kind):
        if given or parts:
            raise InputError(f"this {name} has its own {', '.join((*given, *parts))}; set them there: {name}(...)")
        return model
    if isinstance(model, _Maker):
        raise InputError(f"this task needs a {name}, got the {type(model).__name__} of another kind of model")
    if not isinstance(model, nn.Module):
        # scripts name the processor of the checkpoint again, beside the checkpoint
        return kind.from_pretrained(model, **given)
    processor = parts.get("processor")
    if kind is Classifier:
        processor = getattr(processor, "image_processor", parts.get("image_processor", processor))
    elif processor is None and len(parts) == 2:
        processor = SiglipProcessor(parts["image_processor"], parts["tokenizer"])
    if processor is None:
        raise InputError(
            f"a bare {type(model).__name__} cannot prepare its input; pass processor=... too, or {name}(model, "
            "processor) in place of both"
        )
    made: Any = kind
    return made(model, processor, **given)
