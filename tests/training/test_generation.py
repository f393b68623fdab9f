"""A PaliGemma learns to write: what is asked of a picture of one colour, and its name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from siglip.captioner import Captioner, Text
from siglip.cli.main import main
from siglip.config import SiglipConfig, SiglipVisionConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.data import Batch, open_source
from siglip.errors import ConfigError, DataError, SiglipWarning
from siglip.model import PaliGemmaForConditionalGeneration
from siglip.model.decoder import GemmaDecoder
from siglip.processing import PaliGemmaProcessor
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig, train
from siglip.training.estimate import estimate
from siglip.training.tasks import build
from tests.training.conftest import COLOURS, batches, learner_of, losses, metrics, square, steps_of
from tests.training.test_resume import check_same_run, stop_at


def written(folder: Path, pictures: int) -> Path:
    """Pictures of eight colours with two captions, and a question on every second one."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for number in range(pictures):
        colour = list(COLOURS)[number % len(COLOURS)]
        (folder / f"{number}.png").write_bytes(square(colour, number))
        rows.append({"image": f"{number}.png", "suffix": [colour, f"a {colour} square"]})
        if number % 2:
            rows.append({"image": f"{number}.png", "prefix": "answer en what color?", "suffix": colour})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def small_writer(dropout: float = 0.0) -> PaliGemmaConfig:
    return PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8,
            patch_size=4,
        ),
        text_config=GemmaConfig(
            vocab_size=8002, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=48, dropout=dropout,
        ),
        image_token_index=8002,
    )  # fmt: skip


def writing_run(train: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        task="generation",
        model=ModelSpec(config=small_writer(), preparation="nano"),
        data=DataSpec(train=str(train), workers=0),
        optimizer=OptimizerSpec(lr=0.01, weight_decay=0.0),
        steps=4,
        batch_size=8,
        log_every=1,
        save_every=2,
    )
    return replace(config, **changes)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """36 rows of 24 pictures."""
    return written(tmp_path / "data", 24)


def writer_of(config: TrainConfig) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    model, processor = build(config)
    assert isinstance(model, PaliGemmaForConditionalGeneration) and isinstance(processor, PaliGemmaProcessor)
    return model, processor


def test_it_learns_to_write_and_the_commands_read_what_it_exports(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = written(tmp_path / "held", 16)
    data = DataSpec(train=str(rows), held_out=str(held_out), workers=0)
    config = writing_run(rows, data=data, steps=120, batch_size=16, evaluate_every=60)
    config = replace(config, optimizer=OptimizerSpec(lr=0.02, weight_decay=0.0, warmup_steps=10))
    folder = train(config, tmp_path / "run")
    found = metrics(tmp_path / "run")
    assert found[0]["step"] == 0
    assert found[0]["held_out/most_frequent"] == pytest.approx(4 / 24)  # each odd colour: two pictures, two questions
    assert found[0]["held_out/exact"] == 0.0
    last = found[-1]
    assert last["held_out/exact"] >= 0.6  # of captions half the names are "a red square"; the first one counts
    assert last["held_out/loss"] < 0.7 < found[0]["held_out/loss"]
    assert last["held_out/likelihood"] == pytest.approx(2.718281828 ** -last["held_out/loss"], rel=1e-4)
    answers = list(Captioner.from_pretrained(folder).write([tmp_path / "held" / "3.png"], "answer en what color?"))
    assert isinstance(answers[0], Text) and answers[0].text == list(COLOURS)[3]
    assert main(["caption", str(tmp_path / "held" / "3.png"), "--model", str(tmp_path / "run"), "--jsonl"]) == 0
    assert list(COLOURS)[3] in json.loads(capsys.readouterr().out.splitlines()[0])["caption"]


def test_the_loss_is_that_of_the_model_with_smoothing_by_hand(rows: Path) -> None:
    """Mean over the tokens of a row, then over rows; every token but the right one gets s / (V - 1)."""
    config = writing_run(rows, label_smoothing=0.2, micro_batch_size=3)
    batch = next(batches(config))
    learner = learner_of(config)
    model, processor = writer_of(config)
    prefixes = [prefix or "caption en" for prefix in batch.prefixes]
    assert set(prefixes) == {"caption en", "answer en what color?"}
    expected = torch.zeros(())
    for index, (prefix, suffix) in enumerate(zip(prefixes, batch.captions, strict=True)):
        inputs = processor.join([prefix], [suffix])
        assert batch.pixels is not None
        pixels = processor.image_processor.normalize(batch.pixels[index : index + 1])
        logits = model(inputs["input_ids"], pixels, token_type_ids=inputs["token_type_ids"]).logits
        right = inputs["labels"][0, 1:]
        targets = torch.full((len(right), logits.shape[-1]), 0.2 / (logits.shape[-1] - 1))
        targets[torch.arange(len(right)), right.clamp(min=0)] = 0.8
        costs = -(targets * F.log_softmax(logits[0, :-1], dim=-1)).sum(dim=-1)
        expected = expected + costs[right != -100].mean() / len(prefixes)
    assert float(learner.task.backward(batch)) == pytest.approx(expected.item(), rel=1e-5)


def test_micro_batches_and_recomputed_layers_change_no_loss(rows: Path) -> None:
    config = writing_run(rows)
    whole = steps_of(config)[0]
    assert steps_of(replace(config, micro_batch_size=3))[0] == pytest.approx(whole, rel=1e-4)
    assert steps_of(replace(config, gradient_checkpointing=True))[0] == pytest.approx(whole, rel=1e-6)


def test_a_micro_batch_is_only_as_wide_as_its_longest_row(tmp_path: Path) -> None:
    data = written(tmp_path / "data", 16)
    data.write_text(data.read_text().replace('"suffix": ["red", "a red square"]', f'"suffix": "{"red " * 20}"', 1))
    config = writing_run(data, batch_size=24, micro_batch_size=8)
    learner, batch = learner_of(config), next(batches(config))
    widths: list[int] = []

    def note(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, GemmaDecoder):
            widths.append(inputs[0].shape[1])

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    learner.task.backward(batch)
    hook.remove()
    assert len(widths) == 3
    assert max(widths[:2]) < 20 and widths[2] > 25


def test_bfloat16_is_close_to_float32(rows: Path) -> None:
    config = writing_run(rows)
    assert steps_of(replace(config, precision="bfloat16"))[0] == pytest.approx(steps_of(config)[0], rel=0.05)


@pytest.mark.parametrize(
    ("trainable", "learning"),
    [
        ("all", {"vision_tower", "multi_modal_projector", "language_model"}),
        ("text", {"multi_modal_projector", "language_model"}),
        ("decoder", {"language_model"}),
        ("head", {"multi_modal_projector"}),
    ],
)
def test_only_what_is_asked_for_changes(rows: Path, trainable: Any, learning: set[str]) -> None:
    config = writing_run(rows, trainable=trainable, steps=1)
    before, (_, after) = writer_of(config)[0].state_dict(), steps_of(config)
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == learning


def test_the_last_blocks_learn_with_the_norms_behind_them(rows: Path) -> None:
    model = build(writing_run(rows, trainable="last-blocks"))[0]
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    tops = {".".join(name.split(".")[:4]) for name in learning if ".layers." in name}
    assert tops == {
        "vision_tower.encoder.layers.1",
        *(name for name in tops if name.startswith("language_model.layers.1")),
    }
    assert {"language_model.norm.weight", "vision_tower.post_layernorm.weight"} < learning
    assert "language_model.embed_tokens.weight" not in learning


def test_a_locked_towers_patch_tokens_are_kept(rows: Path, tmp_path: Path) -> None:
    """In float16, so losses differ by its rounding."""
    config = writing_run(rows, trainable="text")
    train(config, tmp_path / "runs" / "cached")
    train(replace(config, data=replace(config.data, cache_images=False)), tmp_path / "runs" / "running")
    assert losses(tmp_path / "runs" / "cached") == pytest.approx(losses(tmp_path / "runs" / "running"), rel=2e-3)
    (file,) = (tmp_path / "runs" / "image-embeds").iterdir()
    assert file.stat().st_size == 36 * (4 * 16 * 2 + 1)


def test_a_dry_run_counts_what_would_learn(rows: Path) -> None:
    config = writing_run(rows, trainable="text")
    tower = writer_of(config)[0].vision_tower
    facts = estimate(config)
    assert facts["locked_parameters"] == sum(weight.numel() for weight in tower.parameters())
    assert set(facts["groups"]) == {"head kernels", "head rest", "text kernels", "text rest"}
    assert facts["time"]["step_s"] > 0 and facts["memory_bytes"]["activations"] > 0


def test_a_stopped_run_ends_with_the_same_weights(rows: Path, tmp_path: Path) -> None:
    """With all that is drawn: which caption, and dropout."""
    config = writing_run(rows, model=ModelSpec(config=small_writer(dropout=0.2), preparation="nano"), ema=0.9)
    train(config, tmp_path / "whole")
    stop_at(tmp_path / "whole", tmp_path / "stopped", 2)
    train(config, tmp_path / "stopped", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_goes_on_from_a_checkpoint_at_another_size(rows: Path, tmp_path: Path) -> None:
    folder = train(writing_run(rows, steps=1), tmp_path / "first")
    config = writing_run(rows, model=ModelSpec(source=str(folder), image_size=12), steps=1)
    model, processor = writer_of(config)
    assert processor.num_patches == model.config.vision_config.num_patches == 9
    assert len(steps_of(config)[0]) == 1


def test_the_tower_of_a_pair_takes_the_place_of_the_fresh_one(rows: Path) -> None:
    vision = SiglipConfig.from_pretrained("nano").vision_config
    shape = replace(
        small_writer(),
        vision_config=vision,
        text_config=replace(small_writer().text_config, max_position_embeddings=64),
    )
    config = writing_run(rows, model=ModelSpec(config=shape, preparation="nano", image_tower="nano"))
    from siglip import SiglipVisionModel

    theirs = SiglipVisionModel.from_pretrained("nano").state_dict()
    for name, value in writer_of(config)[0].vision_tower.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    other = replace(config.model, config=replace(shape, vision_config=small_writer().vision_config))
    with pytest.raises(ConfigError, match="must be that of"):
        build(replace(config, model=other))


def test_long_texts_are_cut_counted_and_told(tmp_path: Path) -> None:
    data = written(tmp_path / "data", 8)
    text = data.read_text().replace('"suffix": ["red", "a red square"]', f'"suffix": "{"red " * 60}"')
    data.write_text(text)
    config = writing_run(data, batch_size=12)
    learner = learner_of(config)
    with pytest.warns(SiglipWarning, match="longer, with their prompt, than the 48 tokens"):
        learner.task.backward(next(batches(config)))
    assert learner.task.numbers() == {"cut_texts": 1.0}


def test_a_row_without_picture_or_suffix_is_counted_as_broken(tmp_path: Path) -> None:
    data = written(tmp_path / "data", 8)
    lines = [{"prefix": "x", "suffix": "y"}, {"image": "1.png", "prefix": "z", "suffix": ""}]
    lines += [{"image": "1.png", "suffix": " "}, {"image": "1.png", "question": "what?"}]
    data.write_text(data.read_text() + "".join(json.dumps(line) + "\n" for line in lines))
    config = writing_run(data, data=DataSpec(train=str(data), workers=0, max_broken=0.5), batch_size=15)
    batch: Batch = next(batches(config))
    # a blank caption stands with the others of its picture
    assert sorted({failure.reason for failure in batch.broken}) == [
        "it has no answer",
        "it has no suffix",
        "its picture is None, expected a path, bytes or an image",
    ]
    with pytest.raises(DataError, match="samples are broken"):
        train(replace(config, data=DataSpec(train=str(data), workers=0)), tmp_path / "run")


def test_rows_of_one_picture_stay_apart_by_what_they_ask(rows: Path) -> None:
    source = open_source(str(rows))
    assert len(source) == 36
    assert source.sample(1, image=False).captions == ("green", "a green square")
    assert source.sample(2, image=False).facts["prefix"] == "answer en what color?"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "contrastive"}, "needs a SiglipConfig"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, got 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        writing_run(Path("x"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_token_index": 8000}, "image_token_index, eos_token_id and pad_token_id 8002, 1, 0"),
        ({"text_config": replace(small_writer().text_config, vocab_size=8000)}, "needs 8002 rows"),
    ],
)
def test_ids_that_are_not_the_vocabularys_are_refused(rows: Path, changes: dict[str, Any], message: str) -> None:
    shape = replace(small_writer(), **changes)
    with pytest.raises(ConfigError, match=message):
        build(writing_run(rows, model=ModelSpec(config=shape, preparation="nano")))


def test_its_configuration_survives_its_own_json(rows: Path) -> None:
    config = writing_run(rows, label_smoothing=0.1, trainable="decoder")
    assert TrainConfig.from_json(config.to_json()) == config
    assert replace(config, task="generation").caches_images
