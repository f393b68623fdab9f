"""Several processes give the numbers of one, replicated or sharded, with equal and unequal shares."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from siglip.distributed import all_gather_ints, init_from_environment, rank, shutdown
from siglip.errors import ConfigError
from siglip.training import TrainConfig, train
from siglip.training.config import OptimizerSpec
from siglip.training.learner import Learner
from siglip.training.tasks import build
from tests.processes import run_processes
from tests.training.conftest import losses, small_run
from tests.training.test_generation import writing_run
from tests.training.test_resume import check_same_run, stop_at


def runs(shard: Path) -> dict[str, TrainConfig]:
    """What is compared; nine rows for two processes are four and five."""
    writing = writing_run(shard, optimizer=OptimizerSpec(lr=1e-3), ema=0.9)
    config = small_run(shard, steps=4, optimizer_lr=1e-3, ema=0.9, data_positives="equal")
    return {
        "replicate": replace(config, batch_size=9, micro_batch_size=2),
        "locked": replace(config, trainable="text"),
        "fsdp": replace(config, sharding="fsdp"),
        "fsdp-lion": replace(
            config, sharding="fsdp", micro_batch_size=2, optimizer=OptimizerSpec(name="lion", lr=1e-3, clip_norm=0.1)
        ),
        "writing": replace(writing, batch_size=9, micro_batch_size=2),
        "writing-locked": replace(writing, trainable="text"),
        "writing-lora": replace(writing, trainable="lora", batch_size=9, micro_batch_size=2),
        "writing-fsdp": replace(writing, sharding="fsdp", micro_batch_size=2),
        "writing-lora-fsdp": replace(writing, trainable="lora", sharding="fsdp", micro_batch_size=2),
    }


def train_in_turn() -> None:
    """Each run, and a sharded one that goes on from its second step."""
    out = Path(os.environ["OUT"])
    configs = runs(Path(os.environ["SHARD"]))
    device = init_from_environment()
    sys.modules["matplotlib"] = None  # pyright: ignore[reportArgumentType]  # a plot takes longer than the run
    for name, config in configs.items():
        train(config, out / name)
    if rank() == 0:
        stop_at(out / "fsdp", out / "fsdp-resumed", 2)
    all_gather_ints([0], device)
    train(configs["fsdp"], out / "fsdp-resumed", resume=True)
    shutdown()


def test_two_processes_give_the_losses_and_weights_of_one(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARD", str(shard))
    monkeypatch.setenv("OUT", str(tmp_path / "two"))
    run_processes(train_in_turn, 2, tmp_path)
    for name, config in runs(shard).items():
        train(replace(config, sharding="replicate"), tmp_path / "one" / name)
        assert losses(tmp_path / "two" / name) == pytest.approx(losses(tmp_path / "one" / name), rel=2e-5), name
        ours, theirs = (load_file(tmp_path / side / name / "export" / "model.safetensors") for side in ("two", "one"))
        for key, value in ours.items():
            if key.endswith("k_proj.bias"):
                continue  # softmax does not see it: its gradient is rounding, which the optimizers blow up to a step
            torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=2e-5, msg=f"{name} {key}")
    check_same_run(tmp_path / "two" / "fsdp", tmp_path / "two" / "fsdp-resumed")


def test_sharding_needs_processes(shard: Path) -> None:
    config = small_run(shard, sharding="fsdp")
    model, processor = build(config)
    with pytest.raises(ConfigError, match="torchrun"):
        Learner(model, processor, config, torch.device("cpu"))


def test_what_cannot_be_sharded_is_refused(shard: Path) -> None:
    config = small_run(shard, sharding="fsdp")
    with pytest.raises(ConfigError, match="cannot be sharded"):
        replace(config, optimizer=OptimizerSpec(name="adafactor"))
