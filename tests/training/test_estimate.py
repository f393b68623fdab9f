"""A dry run tells what a run would be, and leaves nothing behind."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from siglip.cli.main import main
from siglip.training.estimate import _kept_bytes, estimate
from tests.training.conftest import small_run


def test_a_dry_run_prints_the_run_and_writes_nothing(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_run(shard, data_held_out=str(shard))
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from siglip.training import TrainConfig\n"
        f"def recipe():\n    return TrainConfig.from_json({config.to_json()!r})\n"
    )
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["train", str(recipe), "--dry-run", "--json", "--set", "steps=50"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == before
    told = json.loads(capsys.readouterr().out)
    assert next(iter(told)) == "summary"
    assert told["summary"].startswith("50 steps of 8 samples, 10 passes over 40: about ")
    assert re.search(
        r"about [\d.]+ (seconds|minutes) on the CPU, [\d.]+ MB of memory; 0.138 of 0.138 million ", told["summary"]
    )
    assert told["config"]["steps"] == 50
    assert told["data"] == {"samples": 40, "passes": 10.0, "held_out_samples": 40}
    assert told["time"]["steps"] == 50
    assert told["time"]["hours"] * 3600 == pytest.approx(50 * told["time"]["step_s"])


def test_groups_and_memory_are_counted(shard: Path) -> None:
    told = estimate(small_run(shard, ema=0.9, optimizer_image_lr_multiplier=0.1))
    groups, memory = told["groups"], told["memory_bytes"]
    # 8 px in patches of 4; two layers: kernel 3*4*4*16, per layer 4*16*16 + 2*16*32, head 4*16*16 + 2*16*32
    assert groups["image kernels"] == {"parameters": 768 + 3 * 2048, "lr": pytest.approx(0.001), "weight_decay": 0.1}
    assert groups["logit rest"]["parameters"] == 2
    count = sum(group["parameters"] for group in groups.values())
    assert told["locked_parameters"] == 0
    assert memory["weights"] == memory["gradients"] == memory["average"] == 4 * count
    assert memory["optimizer"] == pytest.approx(8 * count, rel=1e-3)
    assert memory["total"] == sum(value for name, value in memory.items() if name != "total")


def test_half_the_rows_at_a_time_keep_half_the_activations(shard: Path) -> None:
    whole, half = (estimate(small_run(shard, micro_batch_size=rows)) for rows in (None, 4))
    assert half["memory_bytes"]["activations"] == pytest.approx(whole["memory_bytes"]["activations"] / 2, rel=0.05)


def test_a_locked_tower_has_no_gradients_and_keeps_nothing(shard: Path) -> None:
    config = small_run(shard)
    whole, locked = estimate(config)["memory_bytes"], estimate(replace(config, trainable="text"))
    assert locked["locked_parameters"] > 0
    assert locked["memory_bytes"]["weights"] == whole["weights"]
    assert locked["memory_bytes"]["gradients"] == whole["gradients"] - 4 * locked["locked_parameters"]
    assert locked["memory_bytes"]["activations"] < 0.7 * whole["activations"]


def test_kept_bytes_are_those_of_the_saved_tensors() -> None:
    """y = exp(x w): x (10 x 3) for the gradient of w, y (10 x 5) for that of exp; w itself is a weight."""
    layer = nn.Linear(3, 5, bias=False)
    x = torch.randn(10, 3)
    assert _kept_bytes(lambda: layer(x).exp().sum(), layer) == 4 * (30 + 50)
