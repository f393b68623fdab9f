"""Checkpoints of a run are whole or absent, and put everything back bit for bit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_module, distribute_tensor

from siglip.errors import CheckpointError
from siglip.model import SiglipModel
from siglip.training.config import OptimizerSpec
from siglip.training.optimizers import make_optimizer
from siglip.training.state import CheckpointFolder, RunState, gather_state, scatter_state, whole


def state(step: int, score: float | None = None) -> RunState:
    return RunState(step=step, tensors={"x": torch.full((2,), float(step))}, score=score)


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=2)
    for step, score in ((1, 0.1), (2, 0.9), (3, 0.2), (4, None), (5, 0.3)):
        checkpoints.save(state(step, score), wait=True)
    assert steps_in(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]
    assert checkpoints.best_step() == 2
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.step == 5
    assert latest.tensors["x"].tolist() == [5.0, 5.0]


def test_what_is_gathered_is_the_moment_of_the_call(tiny_model: SiglipModel) -> None:
    optimizer = make_optimizer(tiny_model.named_parameters(), OptimizerSpec())
    for parameter in tiny_model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    average = {"x": torch.zeros(3)}
    gathered = gather_state(tiny_model, optimizer, average)
    before = {name: tensor.clone() for name, tensor in gathered.items()}
    optimizer.step()
    average["x"].fill_(1.0)
    for name, tensor in gathered.items():
        assert torch.equal(tensor, before[name]), name


def test_a_step_that_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    """Its bytes would be the same, and replacing a folder takes two renames, between which there is none."""
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    checkpoints.save(state(1), wait=True)
    inode = (tmp_path / "step-00000001" / "state.safetensors").stat().st_ino
    checkpoints.save(state(1), wait=True)
    assert (tmp_path / "step-00000001" / "state.safetensors").stat().st_ino == inode
    assert steps_in(tmp_path) == ["step-00000001"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    checkpoints.save(state(1), wait=True)
    (tmp_path / "step-00000001" / "state.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"step-00000001 cannot be read .* remove it"):
        checkpoints.latest()


def test_half_written_folders_are_not_seen_and_are_cleaned(tmp_path: Path) -> None:
    (tmp_path / ".step-00000009.77.tmp").mkdir()
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    assert checkpoints.latest() is None
    checkpoints.save(state(1), wait=True)
    assert steps_in(tmp_path) == ["step-00000001"]


def test_a_write_that_fails_is_reported_at_the_next_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    checkpoints = CheckpointFolder(tmp_path / "file", keep=1)
    checkpoints.save(state(1))
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpoints.wait()


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion"])
def test_model_optimizer_and_average_come_back_bit_for_bit(tiny_model: SiglipModel, tmp_path: Path, name: str) -> None:
    config = OptimizerSpec(name=name, lr=0.01)  # type: ignore[arg-type]
    optimizer = make_optimizer(tiny_model.named_parameters(), config)

    def update(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()

    update(tiny_model, optimizer, 1)
    average = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    checkpoints.save(RunState(step=1, tensors=gather_state(tiny_model, optimizer, average)), wait=True)

    other = SiglipModel(tiny_model.config, generator=torch.Generator().manual_seed(9))
    other_optimizer = make_optimizer(other.named_parameters(), config)
    other_average = {key: torch.zeros_like(value) for key, value in other.state_dict().items()}
    latest = checkpoints.latest()
    assert latest is not None
    scatter_state(latest.tensors, other, other_optimizer, other_average)
    update(tiny_model, optimizer, 2)
    update(other, other_optimizer, 2)
    for key, value in tiny_model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
        assert torch.equal(average[key], other_average[key]), key


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """Of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_of_a_sharded_parameter_only_what_has_its_shape_is_cut_with_it(mesh: DeviceMesh, name: str) -> None:
    """The count of its steps, a scalar, is whole in every process."""
    kept: list[dict[str, tuple[bool, torch.Tensor]]] = []
    gathered: dict[str, torch.Tensor] = {}
    for _ in range(2):
        model = distribute_module(nn.Linear(2, 3), mesh, _cut)
        optimizer = make_optimizer(model.named_parameters(), OptimizerSpec(name=name, lr=0.01))  # type: ignore[arg-type]
        if gathered:
            scatter_state(gathered, model, optimizer, {})
        else:
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            gathered = gather_state(model, optimizer, {})
        states = {f"{key}/{part}": value for key, parameter in model.named_parameters()
                  for part, value in optimizer.state[parameter].items()}  # fmt: skip
        kept.append({key: (isinstance(value, DTensor), whole(value)) for key, value in states.items()})
    before, after = kept
    assert before.keys() == after.keys()
    for key, (is_cut, value) in before.items():
        assert after[key][0] == is_cut, key
        assert torch.equal(after[key][1], value), key


def _cut(_: str, module: nn.Module, mesh: DeviceMesh) -> None:
    for key, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, key, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(0)])))


def test_a_checkpoint_of_another_model_is_refused(tiny_model: SiglipModel) -> None:
    optimizer = make_optimizer(tiny_model.named_parameters(), OptimizerSpec())
    with pytest.raises(CheckpointError, match="resume with the recipe"):
        scatter_state({}, tiny_model, optimizer, {})
