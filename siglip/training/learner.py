"""A batch -> one update of the weights: gradients, clipping, optimizer, average."""

import math
from collections.abc import Mapping
from random import Random

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from siglip.data import Batch
from siglip.distributed import rank, world_size
from siglip.errors import TrainingError
from siglip.processing import AnyProcessor
from siglip.training.config import TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.lora import plain_model
from siglip.training.optimizers import make_optimizer, set_learning_rate
from siglip.training.schedule import learning_rate_factor
from siglip.training.state import gather_state, scatter_state, whole
from siglip.training.tasks import TASKS, Task


class Learner:
    """A model with what it minimises, its optimizer, and the average of its weights, if the recipe wants one.

    All processes make one and call the same methods in the same order.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: AnyProcessor,
        config: TrainConfig,
        device: torch.device,
        cache: ImageCache | None = None,
    ) -> None:
        self._model, self._config = model, config
        self.task: Task = TASKS[config.task](model, processor, config, device, cache)
        self.optimizer = make_optimizer(model.named_parameters(), config.optimizer)
        self._average: dict[str, Tensor] = {}
        if config.ema is not None:
            learning = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
            self._average = {name: weight.detach().clone() for name, weight in learning}

    def update(self, batch: Batch, step: int) -> dict[str, float]:
        """Change the weights once, as update number `step` from 0; returns what it was like.

        Raises TrainingError if loss or gradient are not finite; the weights are then as before.
        """
        config, optimizer = self._config, self._config.optimizer
        # drawn anew from (seed, step, rank), so that a resumed run needs no memory of earlier draws
        torch.manual_seed(Random(f"{config.seed} {step} {rank()}").getrandbits(63))
        self.optimizer.zero_grad(set_to_none=True)
        share = self.task.backward(batch)
        if world_size() > 1:
            dist.all_reduce(share)
        gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
        loss, norm = torch.stack([share / world_size(), _norm(gradients).to(share)]).tolist()
        if not math.isfinite(loss) or not math.isfinite(norm):
            some = f"{', '.join(batch.names[:5])}{', ...' if len(batch) > 5 else ''}"
            raise TrainingError(
                f"loss {loss} and gradient norm {norm} at step {step + 1}, so the weights were not touched; the batch "
                f"held {some}. Lower optimizer.lr, or look at these samples"
            )
        if optimizer.clip_norm is not None and norm > optimizer.clip_norm:
            for gradient in gradients:
                gradient.mul_(optimizer.clip_norm / norm)
        factor = learning_rate_factor(
            step, steps=config.steps, warmup_steps=optimizer.warmup_steps, decay=optimizer.decay
        )
        set_learning_rate(self.optimizer, factor)
        self.optimizer.step()
        self._follow(step)
        return {"loss": loss, "lr": factor * optimizer.lr, "gradient_norm": norm}

    def plain_copy(self) -> nn.Module:
        """An unwrapped model in evaluation mode with the averaged weights, or the current ones without average."""
        weights = {**dict(self._model.named_parameters()), **self._average}
        copies = {name: whole(value.detach()).clone() for name, value in weights.items()}
        return plain_model(self._model, copies, self._config.lora)

    def state(self) -> dict[str, Tensor]:
        """Copies on the CPU of all there is to go on from; empty on all processes but the first."""
        return gather_state(self._model, self.optimizer, self._average)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave. Raises CheckpointError if it is another model's."""
        scatter_state(tensors, self._model, self.optimizer, self._average)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average towards the weights; a young average forgets its random start faster."""
        if self._average and self._config.ema is not None:
            decay = min(self._config.ema, (step + 1) / (step + 10))
            weights = dict(self._model.named_parameters())
            for name, average in self._average.items():
                average.lerp_(weights[name], 1 - decay)


def _norm(gradients: list[Tensor]) -> Tensor:
    """Length of all gradients as one vector."""
    # sharded ones know each other only; t and b are whole on every process
    sharded = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    plain = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    norms = [whole(get_total_norm(part)) for part in (sharded, plain) if part]
    return torch.linalg.vector_norm(torch.stack(norms))
