"""Pictures and their classes: cross-entropy of a linear layer on the image tower, and the share of right answers."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from siglip.config import SiglipConfig
from siglip.data import Batch, Source, Subset
from siglip.distributed import all_gather, world_size
from siglip.embedder import Embedder
from siglip.errors import CheckpointError, DataError, clip
from siglip.evaluation.classes import match_labels
from siglip.evaluation.metrics import accuracies, class_places
from siglip.evaluation.probe import fit_probe
from siglip.model import SiglipForImageClassification, SiglipModel, SiglipVisionModel
from siglip.model.classifier import pooling_as_layer
from siglip.processing import AnyProcessor, SiglipProcessor
from siglip.training.config import ModelSpec, TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.setup import check_vocabulary, choose_trainable, fresh_processor, from_checkpoint
from siglip.training.tasks.task import broken_among, held_out_batches
from siglip.training.towers import hold_back, spread

# training pictures that a probe is fitted to: its cost grows with them, its use soon does not
_PROBED = 20_000


class ClassTask:
    """Cross-entropy over the classes of the data; samples without a class do not count."""

    score: ClassVar[str] = "top1"

    @classmethod
    def build(cls, config: TrainConfig, labels: Sequence[str]) -> tuple[nn.Module, AnyProcessor]:
        if len(labels) == 1:
            raise DataError(f"{config.data.train} has only one class, {clip(labels[0])}; a classifier needs two")
        if not labels:
            raise DataError(
                f"{config.data.train} has no classes to learn; give a folder with one folder of pictures for each "
                "class, or shards with class numbers and a classnames.txt"
            )
        spec = config.model
        if spec.source is not None:
            model, processor = from_checkpoint(SiglipForImageClassification, spec, labels)
            if spec.classifier_start == "probe":
                model = _reading_pooled_vectors(model, spec)
        else:
            assert isinstance(spec.config, SiglipConfig)
            generator = torch.Generator().manual_seed(config.seed)
            model = SiglipForImageClassification(spec.config.with_labels(list(labels)), generator=generator)
            processor = fresh_processor(spec, spec.config)
        check_vocabulary(processor, model.config)
        choose_trainable(model, (model.vision_model,), config)
        return model, processor

    @classmethod
    def begin(
        cls, model: nn.Module, processor: AnyProcessor, config: TrainConfig, source: Source, device: torch.device
    ) -> None:
        """With `classifier_start="probe"`, fit the linear layer to the tower as it is (arXiv 2202.10054, LP-FT).

        It is the linear probe of `siglip evaluate`, on the same vectors but for their length.
        """
        if config.model.classifier_start == "zeros":
            return
        assert isinstance(model, SiglipForImageClassification)
        chosen = np.sort(np.random.default_rng(config.seed).permutation(len(source))[:_PROBED])
        tower = model.to(device).eval().vision_model
        vectors, labels = [torch.empty(0, model.config.vision_config.hidden_size)], [torch.empty(0, dtype=torch.int64)]
        for batch in held_out_batches(Subset(source, chosen), processor, config):
            assert batch.pixels is not None
            with torch.inference_mode():
                tokens = tower(processor.image_processor.normalize(batch.pixels.to(device))).last_hidden_state
            vectors.append(tokens.mean(dim=1).float().cpu()[batch.labels >= 0])
            labels.append(batch.labels[batch.labels >= 0])
        features, classes = all_gather(torch.cat(vectors)).numpy(), all_gather(torch.cat(labels)).numpy()
        fitted, _ = fit_probe(features, classes, model.config.num_labels, seed=config.seed)
        kernel = fitted.weights / fitted.spread[:, None]
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(kernel.T))
            model.classifier.bias.copy_(torch.from_numpy(fitted.bias - fitted.mean @ kernel))

    @classmethod
    def row_flops(cls, model: nn.Module) -> float:
        assert isinstance(model, SiglipForImageClassification)
        weights = sum(weight.numel() for weight in model.vision_model.encoder.parameters())
        return 6.0 * model.config.vision_config.num_patches * weights

    def __init__(
        self,
        model: nn.Module,
        processor: AnyProcessor,
        config: TrainConfig,
        device: torch.device,
        cache: ImageCache | None,
    ) -> None:
        assert isinstance(model, SiglipForImageClassification)
        assert cache is None and isinstance(processor, SiglipProcessor)
        model.vision_model.encoder.gradient_checkpointing = config.gradient_checkpointing
        self._processor, self._config, self._device = processor, config, device
        self._classes = list(model.config.id2label.values())
        self._model = spread(model, config, device)

    def backward(self, batch: Batch) -> Float[Tensor, ""]:
        batch = batch.to(self._device)
        assert batch.pixels is not None
        self._model.train()
        share = world_size() / self._config.batch_size
        rows = self._config.micro_batch_size or len(batch)
        total = torch.zeros((), device=self._device)
        parts = list(zip(batch.pixels.split(rows), batch.labels.split(rows), strict=True))
        for index, (pixels, labels) in enumerate(parts):
            with hold_back(self._model) if index + 1 < len(parts) else nullcontext():
                logits = self._logits(self._model, pixels)
                loss = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") * share
                loss.backward()
            total += loss.detach()
        return total

    def numbers(self) -> dict[str, float]:
        return {}

    def held_out(self, model: nn.Module, source: Source) -> dict[str, float]:
        return self._judged(source, lambda pixels: self._logits(model, pixels))[0]

    @torch.inference_mode()
    def baseline(self, source: Source) -> dict[str, float]:
        """The share of the most frequent class, and top-1 of the zero-shot answers of the checkpoint, if it has any."""
        spec = self._config.model
        try:
            pair = None if spec.source is None else from_checkpoint(SiglipModel, spec)[0]
        except CheckpointError:
            pair = None  # a classifier is trained further: it has no text tower
        if pair is None:
            _, labels = self._judged(source, lambda pixels: torch.zeros(len(pixels), len(self._classes)))
            return {"majority": _most_frequent(labels)}
        embedder = Embedder(pair, self._processor, device=self._device, dtype="float32")
        names = [name.replace("_", " ") for name in self._classes]
        texts = torch.from_numpy(embedder.embed_labels(names)).to(self._device)
        pair.to(self._device)

        def cosines(pixels: Tensor) -> Tensor:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bfloat16"):
                images = pair.get_image_features(self._processor.image_processor.normalize(pixels))
            return F.normalize(images.float(), dim=-1) @ texts.T

        found, labels = self._judged(source, cosines)
        return {"zero_shot": found["top1"], "majority": _most_frequent(labels)}

    @torch.inference_mode()
    def _judged(
        self, source: Source, scores: Callable[[Tensor], Tensor]
    ) -> tuple[dict[str, float], Int64[np.ndarray, " n"]]:
        """Accuracies of `scores` of bytes of pictures, [batch, classes]; and the classes of the pictures."""
        # other folders may hold fewer classes, numbered from 0 again
        numbers = match_labels(source.label_names, self._classes)
        places, labels, read = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for batch in held_out_batches(source, self._processor, self._config):
            assert batch.pixels is not None
            read += len(batch)
            known = batch.labels >= 0
            told = batch.labels[known].numpy()
            if len(told) and told.max() >= len(numbers):
                raise DataError(
                    f"{self._config.data.held_out} has a class numbered {told.max()}, counted from 0, and names for "
                    f"{len(numbers)}; give every class its name"
                )
            labels.append(numbers[told])
            found = scores(batch.pixels[known].to(self._device)).float().cpu().numpy()
            places.append(class_places(found, labels[-1]))
        everyone = [all_gather(torch.from_numpy(np.concatenate(part))).numpy() for part in (places, labels)]
        if not len(everyone[0]):
            raise DataError(f"no picture of {self._config.data.held_out} has a class; leave data.held_out out")
        read = int(all_gather(torch.tensor([read])).sum())
        return accuracies(everyone[0], everyone[1], len(self._classes)) | broken_among(source, read), everyone[1]

    def _logits(self, model: nn.Module, pixels: Tensor) -> Float[Tensor, "batch classes"]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bfloat16"):
            return model(self._processor.image_processor.normalize(pixels)).logits.float()


def _reading_pooled_vectors(model: SiglipForImageClassification, spec: ModelSpec) -> SiglipForImageClassification:
    """The classifier with one more layer, behind which the mean of the patch tokens is what the pooling head gave."""
    assert spec.source is not None
    tower = pooling_as_layer(SiglipVisionModel.from_pretrained(spec.source, image_size=spec.image_size))
    made = SiglipForImageClassification(replace(model.config, vision_config=tower.config))
    made.vision_model = tower
    return made.eval()


def _most_frequent(labels: Int64[np.ndarray, " n"]) -> float:
    """Share of the most frequent of them."""
    return float(np.bincount(labels).max() / len(labels))
