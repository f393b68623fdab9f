"""TrainConfig -> what a run would be: groups of parameters, data, memory and time, from one small measured step.

Nothing of the run is written; a locked tower's vectors of a few pictures go to a temporary folder.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from siglip.data import Loader, Source, Subset, open_source
from siglip.files import in_megabytes
from siglip.model import PaliGemmaForConditionalGeneration, SiglipModel
from siglip.processing import AnyProcessor
from siglip.training.config import TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.learner import Learner
from siglip.training.loop import loader_settings
from siglip.training.optimizers import count_parameters
from siglip.training.tasks import TASKS, build

# the work of the measured step: a few seconds on a CPU, and enough rows of a small model to keep it busy
_FLOPS, _MOST_ROWS = 2e11, 64


def estimate(config: TrainConfig) -> dict[str, Any]:
    """Facts of the run, a `summary` of them first; of one process of WORLD_SIZE, if set.

    Memory is weights, gradients, optimizer and average as counted, and activations extrapolated from the bytes that a
    few rows keep for the backward pass; interpreter, libraries and the allocator's waste come on top. Time is that of
    these rows, measured here, times all rows, without the loss over a large batch and without `torch.compile`.
    """
    source = open_source(config.data.train, columns=config.data.columns)
    path = config.data.held_out
    held_out = None if path is None else open_source(path, columns=config.data.columns)
    model, processor = build(config, labels=source.label_names)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = _measure(config, source, model, processor, device)
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    locked = sum(weight.numel() for weight in model.parameters()) - learning
    data = {
        "samples": len(source),
        "passes": round(config.steps * config.batch_size / len(source), 2),
        "held_out_samples": 0 if held_out is None else len(held_out),
    }
    memory, times = _memory(config, learning, locked, small), _time(config, len(source), small)
    summary = (
        f"{config.steps} steps of {config.batch_size} samples, {data['passes']:.3g} passes over {len(source)}: about "
        f"{_in_words(3600 * times['hours'])} on {small.device}, {in_megabytes(memory['total'])} of memory; "
        f"{learning / 1e6:.3g} of {(learning + locked) / 1e6:.3g} million parameters learn"
    )
    return {
        "summary": summary,
        "data": data,
        "memory_bytes": memory,
        "time": times,
        "locked_parameters": locked,
        "groups": small.groups,
        "config": asdict(config),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Small:
    """A step of `rows` rows: seconds and bytes of one row; the groups and the optimizer are those of the run."""

    rows: int
    row_s: float
    row_bytes: int
    sample_s: float
    once_s: float
    optimizer_s: float
    optimizer_bytes: int
    groups: dict[str, dict[str, Any]]
    device: str


def _measure(
    config: TrainConfig, source: Source, model: nn.Module, processor: AnyProcessor, device: torch.device
) -> _Small:
    affordable = int(_FLOPS / TASKS[config.task].row_flops(model))
    rows = max(1, min(_MOST_ROWS, _rows_at_once(config), len(source), affordable))
    plain = replace(config, batch_size=rows, micro_batch_size=None, compile=False, gradient_checkpointing=False)
    plain = replace(plain, sharding="replicate", data=replace(config.data, workers=0))
    cache, once_s = None, 0.0
    with tempfile.TemporaryDirectory() as folder:
        if config.caches_images and isinstance(model, SiglipModel | PaliGemmaForConditionalGeneration):
            cache = ImageCache(Path(folder), Subset(source, range(rows)), model, processor)
            once_s = _seconds(lambda: cache.fill(loader_settings(plain), device, lambda done: None), device) / rows
            source = cache.subset()
        batches = iter(Loader(source, processor, loader_settings(plain, images=cache is None)))
        next(batches)  # opens files
        began = time.perf_counter()
        batch = next(batches)
        sample_s = (time.perf_counter() - began) / rows
        learner = Learner(model, processor, plain, device, cache)
        row_bytes = _kept_bytes(lambda: learner.task.backward(batch), model) // rows
        row_s = _seconds(lambda: learner.task.backward(batch), device) / rows
    learner.optimizer.step()  # makes its tensors
    sizes = count_parameters(learner.optimizer.param_groups)
    return _Small(
        rows=rows,
        row_s=row_s,
        row_bytes=row_bytes,
        sample_s=sample_s,
        once_s=once_s,
        optimizer_s=_seconds(learner.optimizer.step, device),
        optimizer_bytes=sum(part.nbytes for state in learner.optimizer.state.values() for part in state.values()),
        groups={
            group["name"]: {
                "parameters": sizes[group["name"]],
                "lr": group["base_lr"],
                "weight_decay": group["weight_decay"],
            }
            for group in learner.optimizer.param_groups
        },
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU",
    )


def _memory(config: TrainConfig, learning: int, locked: int, small: _Small) -> dict[str, int]:
    shards = _processes() if config.sharding == "fsdp" else 1
    activations = small.row_bytes * _rows_at_once(config)
    parts = {
        "weights": 4 * (learning + locked) // shards,
        "gradients": 4 * learning // shards,
        "optimizer": small.optimizer_bytes // shards,
        "average": 4 * learning // shards if config.ema is not None else 0,
        # inputs of layers, and the inside of one, are a good deal less than half of everything
        "activations": activations // 3 if config.gradient_checkpointing else activations,
    }
    return {**parts, "total": sum(parts.values())}


def _time(config: TrainConfig, samples: int, small: _Small) -> dict[str, Any]:
    share = -(-config.batch_size // _processes())
    # a forward pass is a third of a step, and these two ways to save memory take one more each
    passes = 3 + (share > _rows_at_once(config)) + config.gradient_checkpointing
    towers_s = share * small.row_s * passes / 3 + small.optimizer_s
    data_s = share * small.sample_s / max(1, config.data.workers)
    step_s = max(towers_s, data_s) if config.data.workers else towers_s + data_s
    threads = torch.get_num_threads()
    total_s = config.steps * step_s + samples * small.once_s / _processes()
    return {
        "measured": f"a step of {small.rows} rows on {small.device}, {threads} thread{'s'[: threads != 1]}",
        "steps": config.steps,
        "step_s": step_s,
        "towers_and_optimizer_s": towers_s,
        "making_the_batch_s": data_s,
        "pairs_per_s": share * _processes() / step_s,
        "hours": total_s / 3600,
    }


def _rows_at_once(config: TrainConfig) -> int:
    share = -(-config.batch_size // _processes())
    return min(share, config.micro_batch_size or share)


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _kept_bytes(step: Callable[[], object], model: nn.Module) -> int:
    """What is kept for the backward pass, each storage once, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(kept.values())


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _in_words(seconds: float) -> str:
    for limit, unit, length in ((120, "seconds", 1), (7200, "minutes", 60), (172800, "hours", 3600)):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"
