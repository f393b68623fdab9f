"""A run's checkpoints: tensors and facts <-> `checkpoints/step-00000500/{state.safetensors,state.json}`.

A folder is written under a temporary name, flushed and renamed, so what is there is whole. Writing happens in a thread;
at most one is under way. Tensors are written whole, so a run may go on with another number of processes. No pickle.
"""

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from siglip.distributed import rank
from siglip.errors import CheckpointError
from siglip.files import flush, write_text

_PREFIX = "step-"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """All a run needs to go on: tensors by name, and small facts.

    `position` is the loader's. `config` is the resolved configuration as JSON. `labels` are the classes of the data,
    `fingerprints` what tells it from other data. `score` ranks checkpoints, higher is better; None: nobody looked.
    """

    step: int
    tensors: Mapping[str, Tensor]
    position: Mapping[str, int] = field(default_factory=dict[str, int])
    config: str = ""
    labels: Sequence[str] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict[str, str])
    score: float | None = None


class CheckpointFolder:
    """The checkpoints of one run: the newest `keep` of them and the best by score."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, state: RunState, *, wait: bool = False) -> None:
        """Write in the background; the tensors are not to be changed any more. Raises what an earlier write raised."""
        self.wait()
        self._writer = threading.Thread(target=self._write, args=(state,), name="checkpoint")
        self._writer.start()
        if wait:
            self.wait()

    def rate(self, step: int, score: float) -> None:
        """Note the score of a checkpoint that was saved without one."""
        self.wait()
        if step in self.steps():
            write_text(self._path(step) / "state.json", json.dumps({**self._facts(step), "score": score}))

    def wait(self) -> None:
        """Block until nothing is being written; raises what went wrong."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise CheckpointError(f"the checkpoint could not be written: {failure}") from failure

    def latest(self) -> RunState | None:
        """The newest complete checkpoint, or None if there is none; raises CheckpointError if it cannot be read."""
        steps = self.steps()
        return self.read(steps[-1]) if steps else None

    def best_step(self) -> int | None:
        """The step with the highest score, the newest among equals."""
        scored = [(score, step) for step in self.steps() if (score := self._facts(step).get("score")) is not None]
        return max(scored)[1] if scored else None

    def steps(self) -> list[int]:
        """The steps there are complete checkpoints of, in order."""
        names = [path.name for path in self._folder.glob(f"{_PREFIX}*") if path.is_dir()]
        return sorted(int(name.removeprefix(_PREFIX)) for name in names if name.removeprefix(_PREFIX).isdigit())

    def _path(self, step: int) -> Path:
        return self._folder / f"{_PREFIX}{step:08d}"

    def _facts(self, step: int) -> dict[str, Any]:
        return json.loads((self._path(step) / "state.json").read_text(encoding="utf-8"))

    def read(self, step: int) -> RunState:
        """The checkpoint of that step; raises CheckpointError if it cannot be read."""
        try:
            return RunState(tensors=load_file(self._path(step) / "state.safetensors"), **self._facts(step))
        except Exception as error:
            raise CheckpointError(
                f"{self._path(step)} cannot be read ({error}); remove it to resume earlier"
            ) from error

    def _write(self, state: RunState) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = self._folder / f".{_PREFIX}{state.step:08d}.{os.getpid()}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            save_file(dict(state.tensors), temporary / "state.safetensors")
            flush(temporary / "state.safetensors")
            names = ("step", "position", "config", "labels", "fingerprints", "score")
            write_text(temporary / "state.json", json.dumps({name: getattr(state, name) for name in names}))
            if not self._path(state.step).exists():
                temporary.rename(self._path(state.step))
                flush(self._folder)
            self._prune()
        except BaseException as error:
            self._failure = error

    def _prune(self) -> None:
        best = self.best_step()
        for step in self.steps()[: -self._keep]:
            if step != best:
                # out of sight first, so that a crash leaves no half checkpoint under a valid name
                self._path(step).rename(self._folder / f".{_PREFIX}{step:08d}.old")
        for rubbish in self._folder.glob(f".{_PREFIX}*"):
            shutil.rmtree(rubbish, ignore_errors=True)


def gather_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Copies on the CPU of weights, optimizer and average, whole and by name; every process must call this.

    The first process gets them, the others an empty dictionary.
    """
    copies: dict[str, Tensor] = {}
    for name, tensor in _state(model, optimizer, average):
        # one after the other: sharded tensors must not all be whole on the device at the same time
        together = whole(tensor.detach())
        if rank() == 0:
            copies[name] = together.to("cpu", copy=True, memory_format=torch.contiguous_format)
    return copies


@torch.no_grad()
def scatter_state(
    tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> None:
    """Put back what `gather_state` collected; raises CheckpointError if the run's model has another shape."""
    named = dict(model.named_parameters())
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            name, part = key.removeprefix("optimizer/").rsplit("/", 1)
            if name in named:
                optimizer.state[named[name]][part] = _like(value.clone(), named[name])
    # only now, since the optimizer's own tensors were made above
    for key, target in _state(model, optimizer, average):
        saved = tensors.get(key)
        if saved is None or saved.shape != target.shape:
            raise CheckpointError(f"the checkpoint does not fit the run at {key}; resume with the recipe it began with")
        if not key.startswith("optimizer/"):
            target.copy_(_like(saved, target))


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together; every process must call this. Others are returned as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _state(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        yield f"model/{name}", parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"optimizer/{name}/{key}", value
    for name, value in average.items():
        yield f"average/{name}", value


def _like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as the parameter is kept: on its device, and cut as it is cut."""
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return tensor.to(parameter.device)
