"""What can be trained: one class a task, one row each in TASKS.

A new task is a file here, its row, and its name in `TaskName` of `siglip/training/config.py`.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from siglip.pretrained import PretrainedModel
from siglip.processing import AnyProcessor
from siglip.training.config import TaskName, TrainConfig
from siglip.training.tasks.classes import ClassTask
from siglip.training.tasks.generation import GenerationTask
from siglip.training.tasks.pairs import PairTask
from siglip.training.tasks.task import Task

TASKS: dict[TaskName, type[Task]] = {"contrastive": PairTask, "classification": ClassTask, "generation": GenerationTask}

__all__ = ["TASKS", "Task", "build", "export"]


def build(config: TrainConfig, *, labels: Sequence[str] = ()) -> tuple[nn.Module, AnyProcessor]:
    """The model in float32 with its processor; `labels` are the classes of the data. `requires_grad` says what learns.

    Fresh weights come from `config.seed`. Raises ConfigError if vocabulary and model do not fit, DataError for a
    classifier without classes.
    """
    return TASKS[config.task].build(config, labels)


def export(model: nn.Module, processor: AnyProcessor, folder: Path) -> None:
    """Write what `from_pretrained` reads."""
    assert isinstance(model, PretrainedModel)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
