"""A run learns, is exported, stops where it must, and refuses what would mix two runs."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from siglip.data import Augment, open_source
from siglip.errors import ConfigError, DataError, TrainingError
from siglip.model import SiglipModel
from siglip.processing import SiglipProcessor
from siglip.training import ModelSpec, Stopped, TrainConfig, train
from tests.training.conftest import (
    batches,
    learner_of,
    metrics,
    signal_after,
    small_run,
    small_towers,
    steps_of,
    write_shard,
)


def learning_run(shard: Path) -> TrainConfig:
    held_out = write_shard(shard.with_name("held.tar"), 8)
    augment = Augment(crop_area=0.8, flip=0.5)
    config = small_run(shard, steps=40, batch_size=16, evaluate_every=20, ema=0.9, optimizer_logit_lr_multiplier=10.0)
    return replace(config, data=replace(config.data, held_out=str(held_out), positives="equal", augment=augment))


@pytest.mark.drawn
def test_a_run_learns_and_exports_what_transformers_loads_too(shard: Path, tmp_path: Path) -> None:
    folder = train(learning_run(shard), tmp_path / "run")

    rows = metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [*range(41)]
    start, *rows = rows
    assert sum(row["loss"] for row in rows[-5:]) < 0.4 * sum(row["loss"] for row in rows[:5])
    assert rows[-1]["epoch"] == pytest.approx(40 * 16 / 40)
    found = [row["held_out/text_to_image/recall@1"] for row in rows if "held_out/seconds" in row]
    assert len(found) == 2
    assert start.keys() == {"step", *(name for name in rows[-1] if name.startswith("held_out/"))}
    assert found[-1] >= 0.75
    assert (tmp_path / "run" / "metrics.png").read_bytes()[:4] == b"\x89PNG"
    assert TrainConfig.from_json((tmp_path / "run" / "config.json").read_text()) == learning_run(shard)

    model, processor = SiglipModel.from_pretrained(folder), SiglipProcessor.from_pretrained(folder)
    peer = transformers.SiglipModel.from_pretrained(folder)
    samples = [open_source(str(shard)).sample(index) for index in range(5)]
    inputs = processor(
        text=[sample.captions[0] for sample in samples],
        images=[sample.image for sample in samples if sample.image is not None],
        return_tensors="pt",
    )
    with torch.no_grad():
        ours, theirs = model(**inputs), peer(**inputs)
    assert ours.logits_per_image.std() > 0.1
    torch.testing.assert_close(ours.logits_per_image, theirs.logits_per_image, rtol=1e-5, atol=1e-5)


def test_the_average_is_that_of_the_weights(shard: Path) -> None:
    """One step: weights w0 -> w1; the young average moves by 1 - min(0.99, 1 / 10) = 0.9 of the way."""
    config = small_run(shard, steps=1, optimizer_decay="constant")
    (_, start), (_, after) = steps_of(replace(config, optimizer=replace(config.optimizer, lr=1e-9))), steps_of(config)
    _, average = steps_of(replace(config, ema=0.99))
    for name, value in average.state_dict().items():
        expected = torch.lerp(start.state_dict()[name], after.state_dict()[name], 0.9)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("micro", [3, 1])
def test_micro_batches_give_the_losses_of_the_whole_batch(shard: Path, micro: int) -> None:
    config = small_run(shard, steps=3, optimizer_lr=1e-3)
    whole, ours = steps_of(config)[0], steps_of(replace(config, micro_batch_size=micro))[0]
    assert ours == pytest.approx(whole, rel=1e-5)


def test_activation_checkpointing_changes_no_loss(shard: Path) -> None:
    config = small_run(shard, steps=3, optimizer_lr=1e-3)
    assert steps_of(replace(config, gradient_checkpointing=True))[0] == pytest.approx(steps_of(config)[0], rel=1e-6)


def test_patch_dropout_changes_the_losses_and_is_the_same_when_repeated(shard: Path) -> None:
    config = small_run(shard, steps=3, optimizer_lr=1e-3)
    dropping = replace(config, patch_dropout=0.5)
    first = steps_of(dropping)[0]
    assert first == steps_of(dropping)[0]
    assert first != pytest.approx(steps_of(config)[0], rel=1e-4)
    assert steps_of(replace(dropping, gradient_checkpointing=True))[0] == pytest.approx(first, rel=1e-6)


def test_bfloat16_towers_stay_near_float32_ones(shard: Path) -> None:
    config = small_run(shard, steps=3, optimizer_lr=1e-3)
    near, exact = steps_of(replace(config, precision="bfloat16"))[0], steps_of(config)[0]
    assert near == pytest.approx(exact, rel=0.02)
    assert near != exact


def test_gradients_are_clipped_to_the_bound(shard: Path) -> None:
    config = small_run(shard, optimizer_clip_norm=0.5)
    learner, loader = learner_of(config), batches(config)
    norm = learner.update(next(loader), 0)["gradient_norm"]
    assert norm > 0.5
    groups = learner.optimizer.param_groups
    gradients = [parameter.grad.flatten() for group in groups for parameter in group["params"]]
    assert torch.cat(gradients).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_samples(shard: Path, tmp_path: Path) -> None:
    config = small_run(shard, model=ModelSpec(config=small_towers(), preparation="nano"))
    # past the check of configurations, which takes no such number
    object.__setattr__(config.model, "initial_bias", float("nan"))
    learner = learner_of(config)
    before = {name: value.clone() for name, value in learner.plain_copy().state_dict().items()}
    batch = next(batches(config))
    with pytest.raises(TrainingError, match=batch.names[0]):
        learner.update(batch, 0)
    for name, value in learner.plain_copy().state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True, msg=name)
    with pytest.raises(TrainingError, match=r"loss nan .* step 1"):
        train(config, tmp_path / "run")
    assert (tmp_path / "run" / "not-finite-step-1-rank-0.txt").read_text().splitlines() == list(batch.names)
    assert not (tmp_path / "run" / "export").exists()


def test_ctrl_c_finishes_the_step_and_saves(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_after(1, signal.SIGINT, monkeypatch)
    with pytest.raises(Stopped, match=r"SIGINT after step 2; to go on: .* --resume") as stopped:
        train(small_run(shard, steps=500, save_every=500), tmp_path / "run")
    assert stopped.value.exit_code == 130
    assert metrics(tmp_path / "run")[-1]["step"] == 2
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_that_is_asked_to_stop_saves_without_a_last_look_at_held_out_data(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    config = small_run(shard, steps=500, save_every=500, evaluate_every=1, data_held_out=str(shard))
    signal_after(3, signal.SIGTERM, monkeypatch)
    with pytest.raises(Stopped, match="SIGTERM after step 4"):
        train(config, run)
    *earlier, last = metrics(run)[1:]
    assert [row["step"] for row in earlier] == [1, 2, 3]
    assert all("held_out/seconds" in row for row in earlier)
    assert "held_out/seconds" not in last
    assert [path.name for path in (run / "checkpoints").iterdir()][-1] == "step-00000004"


def test_a_folder_with_a_run_takes_no_other_one(shard: Path, tmp_path: Path) -> None:
    config = small_run(shard, steps=2)
    train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run already; pass --resume"):
        train(config, tmp_path / "run")
    other = replace(config, seed=5, optimizer=replace(config.optimizer, lr=0.5))
    with pytest.raises(ConfigError, match=r"began with optimizer.lr=0.01, now it is 0.5 \(1 more differ"):
        train(other, tmp_path / "run", resume=True)


def test_what_is_missing_is_told_before_the_first_step(shard: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is missing"):
        train(small_run(shard, data_held_out="nowhere"), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
