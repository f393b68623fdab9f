"""Pictures and their classes: cross-entropy of a linear layer on the image tower, and the share of right answers."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from siglip.data import Batch, Source
from siglip.distributed import all_gather, world_size
from siglip.errors import DataError
from siglip.evaluation.classes import match_labels
from siglip.evaluation.metrics import accuracies, class_places
from siglip.model import SiglipForImageClassification
from siglip.processing import SiglipProcessor
from siglip.training.config import TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.setup import check_vocabulary, choose_trainable, fresh_processor, from_checkpoint
from siglip.training.tasks.task import broken_among, held_out_batches
from siglip.training.towers import hold_back, spread


class ClassTask:
    """Cross-entropy over the classes of the data; samples without a class do not count."""

    score: ClassVar[str] = "top1"

    @classmethod
    def build(cls, config: TrainConfig, labels: Sequence[str]) -> tuple[nn.Module, SiglipProcessor]:
        if not labels:
            raise DataError(
                f"{config.data.train} has no classes to learn; give a folder with one folder of pictures for each "
                "class, or shards with class numbers and a classnames.txt"
            )
        spec = config.model
        if spec.source is not None:
            model, processor = from_checkpoint(SiglipForImageClassification, spec, labels)
        else:
            assert spec.config is not None
            generator = torch.Generator().manual_seed(config.seed)
            model = SiglipForImageClassification(spec.config.with_labels(list(labels)), generator=generator)
            processor = fresh_processor(spec, spec.config)
        check_vocabulary(processor, model.config)
        choose_trainable(model, (model.vision_model,), config)
        return model, processor

    @classmethod
    def begin(
        cls, model: nn.Module, processor: SiglipProcessor, config: TrainConfig, source: Source, device: torch.device
    ) -> None:
        pass

    @classmethod
    def row_flops(cls, model: nn.Module) -> float:
        assert isinstance(model, SiglipForImageClassification)
        weights = sum(weight.numel() for weight in model.vision_model.encoder.parameters())
        return 6.0 * model.config.vision_config.num_patches * weights

    def __init__(
        self,
        model: nn.Module,
        processor: SiglipProcessor,
        config: TrainConfig,
        device: torch.device,
        cache: ImageCache | None,
    ) -> None:
        assert isinstance(model, SiglipForImageClassification)
        assert cache is None
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
        return self._judged(source, lambda pixels: self._logits(model, pixels))

    def baseline(self, source: Source) -> dict[str, float]:
        return {}

    @torch.inference_mode()
    def _judged(self, source: Source, scores: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Accuracies of `scores` of bytes of pictures, [batch, classes]."""
        # other folders may hold fewer classes, numbered from 0 again
        numbers = match_labels(source.label_names, self._classes)
        places, labels, read = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for batch in held_out_batches(source, self._processor, self._config):
            assert batch.pixels is not None
            read += len(batch)
            known = batch.labels >= 0
            labels.append(numbers[batch.labels[known].numpy()])
            found = scores(batch.pixels[known].to(self._device)).float().cpu().numpy()
            places.append(class_places(found, labels[-1]))
        everyone = [all_gather(torch.from_numpy(np.concatenate(part))).numpy() for part in (places, labels)]
        if not len(everyone[0]):
            raise DataError(f"no picture of {self._config.data.held_out} has a class; leave data.held_out out")
        read = int(all_gather(torch.tensor([read])).sum())
        return accuracies(everyone[0], everyone[1], len(self._classes)) | broken_among(source, read)

    def _logits(self, model: nn.Module, pixels: Tensor) -> Float[Tensor, "batch classes"]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bfloat16"):
            return model(self._processor.image_processor.normalize(pixels)).logits.float()
