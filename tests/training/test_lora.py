"""A change of low rank to a decoder: it learns like the rest, and nothing of it is left in what a run makes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from siglip.cli.main import main
from siglip.errors import ConfigError
from siglip.model import PaliGemmaForConditionalGeneration
from siglip.releases import PALIGEMMA_RELEASES
from siglip.training import LoraSpec, ModelSpec, OptimizerSpec, TrainConfig, train
from siglip.training.estimate import estimate
from siglip.training.learner import Learner
from siglip.training.lora import LowRankLinear, add_low_rank
from tests.training.conftest import batches, losses, metrics, steps_of
from tests.training.test_generation import small_writer, writer_of, writing_run, written
from tests.training.test_resume import check_same_run, stop_at

PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return written(tmp_path / "data", 24)


def lora_run(rows: Path, **changes: Any) -> TrainConfig:
    return writing_run(rows, **{"trainable": "lora", "lora": LoraSpec(rank=2, alpha=6.0), **changes})


def learning_of(config: TrainConfig) -> tuple[nn.Module, Learner]:
    model, processor = writer_of(config)
    return model, Learner(model, processor, config, torch.device("cpu"))


def change(weights: dict[str, Tensor], layer: str) -> Tensor:
    """alpha / rank * B A of the runs above, one number after the other in float64."""
    a, b = (weights[f"{layer}.{side}"].double() for side in ("lora_A", "lora_B"))
    found = torch.zeros(len(b), a.shape[1], dtype=torch.float64)
    for out in range(len(b)):
        for into in range(a.shape[1]):
            found[out, into] = 6.0 / 2 * sum(b[out, k] * a[k, into] for k in range(2))
    return found


def test_a_layer_by_hand() -> None:
    """W = (1 2; 3 4), A = (1 1), B = (1; -1), alpha / rank = 3: of x = (1, 10), A x = 11 and B A x = (11, -11)."""
    plain = nn.Linear(2, 2)
    plain.weight.data, plain.bias.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, 0.0])
    layer = LowRankLinear(plain, LoraSpec(rank=1, alpha=3.0), torch.Generator().manual_seed(0))
    x = torch.tensor([[1.0, 10.0]])
    assert layer(x).tolist() == [[21.5, 43.0]]  # B is zero before the first step
    layer.lora_A.data, layer.lora_B.data = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [-1.0]])
    assert layer(x).tolist() == [[21.5 + 33.0, 43.0 - 33.0]]
    layer(x).sum().backward()  # the sum of B is 0, so A does not matter
    assert layer.weight.grad is None
    assert layer.lora_A.grad is not None and layer.lora_A.grad.tolist() == [[0.0, 0.0]]
    assert layer.lora_B.grad is not None and layer.lora_B.grad.tolist() == [[33.0], [33.0]]


def test_every_projection_of_the_decoder_gets_one_and_nothing_else_has_a_gradient(rows: Path) -> None:
    config = lora_run(rows)
    model, learner = learning_of(config)
    changed = [name for name, part in model.named_modules() if isinstance(part, LowRankLinear)]
    assert len(changed) == 2 * len(PROJECTIONS)
    assert {name.rpartition(".")[2] for name in changed} == PROJECTIONS
    assert all(name.startswith("language_model.layers.") for name in changed)
    learner.task.backward(next(batches(config)))
    learning = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert learning == {f"{name}.{side}" for name in changed for side in ("lora_A", "lora_B")}


def test_before_the_first_step_it_writes_what_the_model_it_began_from_does(rows: Path) -> None:
    before = writer_of(writing_run(rows))[0].state_dict()
    after = learning_of(lora_run(rows))[1].plain_copy().state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_the_merged_model_has_the_logits_of_the_one_that_learned(rows: Path) -> None:
    config = lora_run(rows)
    model, learner = learning_of(config)
    for step, batch in zip(range(4), batches(config), strict=False):
        learner.update(batch, step)
    merged = learner.plain_copy()
    _, processor = writer_of(config)
    inputs = processor.join(["caption en", "answer en what color?"], ["a red square", "blue"])
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    base = writer_of(writing_run(rows))[0].eval()
    with torch.no_grad():
        ours, theirs, started = (
            part(inputs["input_ids"], pixels, inputs["attention_mask"], inputs["token_type_ids"]).logits
            for part in (merged, model.eval(), base)
        )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (ours - started).abs().max() > 0.1
    assert not any(isinstance(part, LowRankLinear) for part in merged.modules())


def test_the_export_is_base_and_change_in_the_layout_of_any_other(rows: Path, tmp_path: Path) -> None:
    """So are a checkpoint on the way, and averaged weights, whose A and B are the averages."""
    train(lora_run(rows, ema=0.9), tmp_path / "run")
    train(writing_run(rows, steps=1), tmp_path / "other")
    base = writer_of(writing_run(rows))[0].state_dict()
    state = load_file(tmp_path / "run" / "checkpoints" / "step-00000004" / "state.safetensors")
    average = {name.removeprefix("average/"): value for name, value in state.items() if name.startswith("average/")}
    exported = PaliGemmaForConditionalGeneration.from_pretrained(tmp_path / "run" / "export").state_dict()
    for name, value in exported.items():
        layer = name.removesuffix(".weight")
        if layer.rpartition(".")[2] in PROJECTIONS and name.startswith("language_model."):
            delta = change(average, layer)
            assert delta.abs().max() > 1e-4, name
            torch.testing.assert_close(value, (base[name] + delta).float(), rtol=1e-5, atol=1e-6, msg=name)
        else:
            assert torch.equal(value, base[name]), name
    files = [tmp_path / run / "export" / "model.safetensors" for run in ("run", "other")]
    headers = [path.read_bytes()[: 8 + int.from_bytes(path.read_bytes()[:8], "little")] for path in files]
    assert headers[0] == headers[1]
    for side in ("config.json", "preprocessor_config.json"):
        assert (tmp_path / "run" / "export" / side).read_bytes() == (tmp_path / "other" / "export" / side).read_bytes()
    assert main(["convert", str(tmp_path / "run/checkpoints/step-00000004"), str(tmp_path / "same"), "--to",
                 "huggingface"]) == 0  # fmt: skip
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == files[0].read_bytes()


def test_a_stopped_run_ends_with_the_same_weights(rows: Path, tmp_path: Path) -> None:
    """With dropout and an average; A and B themselves too, and not their product alone."""
    config = lora_run(rows, model=ModelSpec(config=small_writer(dropout=0.2), preparation="nano"), ema=0.9)
    train(config, tmp_path / "whole")
    stop_at(tmp_path / "whole", tmp_path / "stopped", 2)
    train(config, tmp_path / "stopped", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "stopped")
    ours, theirs = (
        load_file(tmp_path / run / "checkpoints" / "step-00000004" / "state.safetensors")
        for run in ("whole", "stopped")
    )
    assert any(name.endswith("lora_A") for name in ours)
    assert set(ours) == set(theirs) and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_micro_batches_recomputed_layers_and_half_precision_change_no_loss(rows: Path) -> None:
    """Unless by rounding."""
    config = lora_run(rows)
    whole = steps_of(config)[0]
    assert whole[-1] < whole[0]
    assert steps_of(replace(config, micro_batch_size=3))[0] == pytest.approx(whole, rel=1e-4)
    assert steps_of(replace(config, gradient_checkpointing=True))[0] == pytest.approx(whole, rel=1e-6)
    assert steps_of(replace(config, precision="bfloat16"))[0] == pytest.approx(whole, rel=0.05)


def test_it_teaches_a_trained_model_another_answer(rows: Path, tmp_path: Path) -> None:
    """The decoder learned the names of colours; 1,024 numbers beside it, to say them with an article."""
    first = writing_run(rows, steps=120, batch_size=16, optimizer=OptimizerSpec(lr=0.02, weight_decay=0.0))
    learned = train(first, tmp_path / "first")
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    text = [{**line, "suffix": f"a {line['suffix'] if 'prefix' in line else line['suffix'][0]}"} for line in lines]
    rows.write_text("".join(json.dumps(line) + "\n" for line in text))
    data = replace(first.data, held_out=str(rows))
    config = lora_run(rows, model=ModelSpec(source=str(learned)), data=data, steps=60, batch_size=16)
    train(replace(config, optimizer=OptimizerSpec(lr=0.02, weight_decay=0.0)), tmp_path / "second")
    found = [row["held_out/exact"] for row in metrics(tmp_path / "second") if "held_out/exact" in row]
    assert found[0] < 0.5 and found[-1] >= 0.9


def test_the_locked_towers_patch_tokens_are_kept(rows: Path, tmp_path: Path) -> None:
    config = lora_run(rows)
    train(config, tmp_path / "runs" / "cached")
    train(replace(config, data=replace(config.data, cache_images=False)), tmp_path / "runs" / "running")
    assert len(list((tmp_path / "runs" / "image-embeds").iterdir())) == 1
    assert losses(tmp_path / "runs" / "cached") == pytest.approx(losses(tmp_path / "runs" / "running"), rel=2e-3)


def test_a_dry_run_counts_what_would_learn(rows: Path) -> None:
    """Width 16, MLP 32, two query heads and one key head of 8: rank times (in + out) for each of seven layers."""
    learning = 2 * 2 * ((16 + 16) + 2 * (16 + 8) + (16 + 16) + 3 * (16 + 32))
    facts = estimate(lora_run(rows))
    assert {name: group["parameters"] for name, group in facts["groups"].items()} == {"text kernels": learning}
    assert facts["locked_parameters"] == sum(w.numel() for w in writer_of(writing_run(rows))[0].parameters())
    assert facts["memory_bytes"]["gradients"] == 4 * learning
    assert f"{learning / 1e6:.3g} of " in facts["summary"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora.rank": "0"}, "LoraSpec.rank must be at least 1, got 0"),
        ({"lora.alpha": "0"}, "LoraSpec.alpha must be above 0, got 0"),
        ({"lora.ranks": "3"}, "did you mean 'rank'"),
        ({"lora.rank": "2.5"}, "lora.rank must be a whole number"),
        ({"trainable": "decoder"}, "lora.rank=2 has no effect with trainable='decoder'"),
        ({"task": "contrastive", "model.config": "none", "model.preparation": "none", "model.source": "nano"},
         "trainable='lora' is for task 'generation'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lora_run(Path("x")).with_overrides(changes)


def test_its_configuration_is_set_by_path_and_survives_its_own_json() -> None:
    config = writing_run(Path("x")).with_overrides({"trainable": "lora", "lora.rank": "4", "lora.alpha": "4"})
    assert config.lora == LoraSpec(rank=4, alpha=4.0) and config.lora.scale == 1.0
    assert TrainConfig.from_json(config.to_json()) == config


def test_of_a_published_model_twenty_million_numbers_learn_in_twelve_gigabytes() -> None:
    """Gemma 2B: 18 layers of width 2048, MLP 16384, eight heads of 256 and one of keys."""
    (release,) = (each for each in PALIGEMMA_RELEASES if each.name == "google/paligemma-3b-pt-224")
    with torch.device("meta"):
        model = PaliGemmaForConditionalGeneration(release.config)
        model.requires_grad_(False)
        add_low_rank(model.language_model, LoraSpec(), seed=0)
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert learning == 18 * 16 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 16384)) == 19_611_648
    # float32: weights of all, and of what learns a gradient and AdamW's two averages
    assert 11.5e9 < sum(4 * weight.numel() for weight in model.parameters()) + 12 * learning < 12.5e9
