"""Several processes give the numbers of one, replicated or sharded, with equal and unequal shares."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from siglip.data import open_source, workers
from siglip.distributed import all_gather_ints, init_from_environment, rank, shutdown
from siglip.errors import ConfigError, DataError
from siglip.training import TrainConfig, train
from siglip.training.config import OptimizerSpec
from siglip.training.learner import Learner
from siglip.training.tasks import build
from tests.processes import run_processes
from tests.training.conftest import learner_of, losses, small_run
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


def judged() -> list[dict[str, float] | str]:
    """The held-out numbers of a model that was not trained, or why there are none, for each set of FOLDER."""
    init_from_environment()
    folder = Path(os.environ["FOLDER"])
    workers._TOO_FEW = 1  # pyright: ignore[reportPrivateUsage]
    found: list[dict[str, float] | str] = []
    for name, max_broken in (("twelve", 0.2), ("twelve", 0.1), ("one", 0.0), ("none", 1.0)):
        config = small_run(folder / "twelve.jsonl", data_held_out=str(folder / f"{name}.jsonl"))
        learner = learner_of(replace(config, data=replace(config.data, max_broken=max_broken)))
        try:
            found.append(learner.task.held_out(learner.plain_copy(), open_source(folder / f"{name}.jsonl")))
        except DataError as error:
            found.append(str(error))
    shutdown()
    return found


def test_held_out_samples_are_judged_alike_by_one_process_and_by_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two broken ones of twelve lie in the share of one process, whose third they are; of one sample one has none."""
    names = [f"{name}.png" for name in ("penguin", "pig", "truck", "teapot", "clock", "bicycle", "beagle", "ladybug")]
    names += ["elephant.png", "sailboat.png", "broken.png", "damaged.png"]
    for name in names[:10]:
        shutil.copy(Path(__file__).parents[2] / "samples" / name, tmp_path)
    for name in names[10:]:
        (tmp_path / name).write_bytes(b"no picture")
    for name, chosen in (("twelve", names), ("one", names[:1]), ("none", names[10:])):
        rows = [json.dumps({"image": file, "caption": file}) for file in chosen]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setattr(workers, "_TOO_FEW", workers._TOO_FEW)  # pyright: ignore[reportPrivateUsage]  # judged sets it
    alone = judged()
    assert alone[0]["broken"] == 2.0 and 0 < alone[0]["image_to_text/recall@5"] <= 1
    assert "2 of 12 samples are broken, more than the share max_broken=0.1; the last is damaged.png" in alone[1]
    assert alone[2]["image_to_text/recall@1"] == 1.0
    assert "none.jsonl could be read; leave data.held_out out" in alone[3]
    for found in run_processes(judged, 2, tmp_path):
        assert [one if isinstance(one, str) else pytest.approx(one) for one in alone] == found


def test_sharding_needs_processes(shard: Path) -> None:
    config = small_run(shard, sharding="fsdp")
    model, processor = build(config)
    with pytest.raises(ConfigError, match="torchrun"):
        Learner(model, processor, config, torch.device("cpu"))


def test_what_cannot_be_sharded_is_refused(shard: Path) -> None:
    config = small_run(shard, sharding="fsdp")
    with pytest.raises(ConfigError, match="cannot be sharded"):
        replace(config, optimizer=OptimizerSpec(name="adafactor"))
