"""A batch -> gradients of what a run minimises, and held-out numbers of a model: pairs, or classes.

Both objectives offer the same: `backward` adds gradients, averaged over processes, and returns this process's share of
the loss, of which the loss is the mean; `numbers` is what else is worth watching; `held_out` says how good a plain copy
of the model, in evaluation mode, is on held-out samples, and `score` names the one of these that ranks checkpoints.
"""

from contextlib import nullcontext

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from siglip.data import Batch, LoaderSettings, Source, one_pass
from siglip.distributed import world_size
from siglip.embedder import Embedder
from siglip.evaluation.classes import match_labels
from siglip.evaluation.metrics import classification
from siglip.evaluation.pictures import embed_source
from siglip.evaluation.retrieval import evaluate_retrieval
from siglip.losses import ring_sigmoid_loss
from siglip.model import SiglipForImageClassification, SiglipModel
from siglip.processing import SiglipProcessor
from siglip.training.accumulate import accumulate
from siglip.training.config import TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.towers import Rows, Towers, hold_back, spread


class PairObjective:
    """The sigmoid loss over the pairs of all processes."""

    score: str = "text_to_image/recall@1"

    def __init__(
        self,
        model: SiglipModel,
        processor: SiglipProcessor,
        config: TrainConfig,
        device: torch.device,
        cache: ImageCache | None,
    ) -> None:
        self._model, self._processor, self._config, self._device, self._cache = model, processor, config, device, cache
        self._towers = spread(Towers(model, processor.image_processor, config.precision), config, device)
        model.to(device)

    def backward(self, batch: Batch) -> Float[Tensor, ""]:
        images = self._cache.rows(batch.indices) if self._cache is not None else batch.pixels
        assert images is not None
        batch = batch.to(self._device)
        rows = Rows(images.to(self._device, non_blocking=True), batch.input_ids)
        ids = (batch.image_ids, batch.text_ids) if self._config.data.positives == "equal" else (None, None)
        scale, bias = self._model.logit_scale, self._model.logit_bias

        def loss(images: Tensor, texts: Tensor) -> Tensor:
            return ring_sigmoid_loss(
                images, texts, logit_scale=scale, logit_bias=bias, image_ids=ids[0], text_ids=ids[1]
            )

        self._towers.train()
        micro_batches = rows.split(self._config.micro_batch_size or len(batch))
        value = accumulate(self._towers, loss, micro_batches, no_sync=lambda: hold_back(self._towers))
        for parameter in (scale, bias):
            # outside of the towers, so nobody else averages them
            if parameter.grad is not None and world_size() > 1:
                dist.all_reduce(parameter.grad)
                parameter.grad /= world_size()
        return value

    def numbers(self) -> dict[str, float]:
        return {"t": self._model.logit_scale.exp().item(), "b": self._model.logit_bias.item()}

    def held_out(self, model: nn.Module, source: Source) -> dict[str, float]:
        assert isinstance(model, SiglipModel)
        embedder = Embedder(model, self._processor, device=self._device)
        return evaluate_retrieval(embedder, embed_source(embedder, source), num_mistakes=0).numbers


class ClassObjective:
    """Cross-entropy over the classes of the data; samples without a class do not count."""

    score: str = "top1"

    def __init__(
        self, model: SiglipForImageClassification, processor: SiglipProcessor, config: TrainConfig, device: torch.device
    ) -> None:
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

    @torch.inference_mode()
    def held_out(self, model: nn.Module, source: Source) -> dict[str, float]:
        # other folders may hold fewer classes, numbered from 0 again
        numbers = torch.from_numpy(match_labels(source.label_names, self._classes))
        settings = LoaderSettings(batch_size=64, workers=self._config.data.workers)
        scores: list[Tensor] = []
        labels: list[Tensor] = []
        for batch in one_pass(source, self._processor, settings):
            assert batch.pixels is not None
            known = batch.labels >= 0
            scores.append(self._logits(model, batch.pixels[known].to(self._device)).cpu())
            labels.append(numbers[batch.labels[known]])
        return classification(torch.cat(scores).numpy(), torch.cat(labels).numpy())

    def _logits(self, model: nn.Module, pixels: Tensor) -> Float[Tensor, "batch classes"]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bfloat16"):
            return model(self._processor.image_processor.normalize(pixels)).logits.float()


Objective = PairObjective | ClassObjective
