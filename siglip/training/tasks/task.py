"""What every task offers: a model to begin with, gradients of a batch, held-out numbers; and how held-out data is read.

The life of a run: `build`, `begin` unless it is resumed, the task itself, `baseline` and `held_out` before the first
step, then `backward` in each step and `held_out` every so often.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from siglip.data import Batch, LoaderSettings, Source
from siglip.distributed import world_size
from siglip.processing import AnyProcessor
from siglip.training.config import TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.passes import shared_pass

# held-out samples that each process takes at a time
_AT_ONCE = 64


class Task(Protocol):
    """What a run minimises and how it is judged. One is made for a run, with the model that learns.

    All processes call the same methods in the same order. `score` names the held-out number that ranks checkpoints,
    higher is better.
    """

    score: ClassVar[str]

    @classmethod
    def build(cls, config: TrainConfig, labels: Sequence[str]) -> tuple[nn.Module, AnyProcessor]:
        """The model that a run begins with, and how its input is prepared; see `siglip.training.tasks.build`."""
        ...

    @classmethod
    def begin(
        cls, model: nn.Module, processor: AnyProcessor, config: TrainConfig, source: Source, device: torch.device
    ) -> None:
        """Give a new run's model what the training data say at once, before the first step; alike on all processes."""
        ...

    @classmethod
    def row_flops(cls, model: nn.Module) -> float:
        """Floating-point operations of one row, forward and backward: six for each weight and token."""
        ...

    def __init__(
        self,
        model: nn.Module,
        processor: AnyProcessor,
        config: TrainConfig,
        device: torch.device,
        cache: ImageCache | None,
    ) -> None:
        """Bring the model to the device, spread over all processes. `cache` has the vectors of a locked image tower."""
        ...

    def backward(self, batch: Batch) -> Float[Tensor, ""]:
        """Add gradients, averaged over processes; returns this process's share of the loss, which is their mean."""
        ...

    def numbers(self) -> dict[str, float]:
        """What else is worth watching."""
        ...

    def held_out(self, model: nn.Module, source: Source) -> dict[str, float]:
        """How good a copy of the model, in evaluation mode, is on held-out samples; each process takes its share.

        The towers run in the precision of the run. Numbers are the same on all processes. Raises DataError for a
        source that does not fit, or more broken samples than `data.max_broken`.
        """
        ...

    def baseline(self, source: Source) -> dict[str, float]:
        """What `held_out` numbers are to be compared with, found without training."""
        ...


def held_out_batches(source: Source, processor: AnyProcessor, config: TrainConfig) -> Iterator[Batch]:
    """The share of this process in all samples, prepared as the checkpoint prepares them."""
    settings = LoaderSettings(
        batch_size=_AT_ONCE * world_size(),
        workers=config.data.workers,
        reduced=False,
        max_broken=config.data.max_broken,
    )
    return shared_pass(source, processor, settings)


def broken_among(source: Source, read: int) -> dict[str, float]:
    """The number of samples that could not be read, if there are any."""
    return {"broken": float(len(source) - read)} if read < len(source) else {}
