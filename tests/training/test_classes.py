"""A classifier learns the classes of a folder of folders."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from PIL import Image

from siglip.errors import ConfigError, DataError, SiglipWarning
from siglip.model import SiglipForImageClassification
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig, train
from siglip.training.tasks import build
from tests.training.conftest import COLOURS, metrics, small_run, square, steps_of


def class_folders(folder: Path, names: list[str], pictures: int) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(pictures):
            Image.open(io.BytesIO(square(name, number))).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model, processor = build(small_run(Path("not opened")))
    model.save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def run_on(checkpoint: Path, pictures: Path, held_out: Path | None = None) -> TrainConfig:
    return TrainConfig(
        task="classification",
        model=ModelSpec(source=str(checkpoint)),
        data=DataSpec(train=str(pictures), held_out=None if held_out is None else str(held_out), workers=0),
        optimizer=OptimizerSpec(lr=0.02, weight_decay=0.0),
        steps=30,
        batch_size=16,
        log_every=1,
    )


# the zero-shot baseline of a toy that reads four tokens
@pytest.mark.filterwarnings("ignore:.* texts are longer than the 4 tokens")
def test_classes_are_learnt_and_held_out_ones_are_matched_by_name(checkpoint: Path, tmp_path: Path) -> None:
    """The held-out folder lacks the first class, so its numbers are one off."""
    names = sorted(COLOURS)[:4]
    pictures = class_folders(tmp_path / "train", names, 6)
    held_out = class_folders(tmp_path / "held", names[1:], 3)
    folder = train(run_on(checkpoint, pictures, held_out), tmp_path / "run")
    rows = metrics(tmp_path / "run")
    assert rows[0]["step"] == 0
    assert rows[1]["loss"] == pytest.approx(1.3863, rel=1e-3)  # log 4: the head starts at zero
    assert rows[-1]["loss"] < 0.5
    assert rows[-1]["held_out/top1"] >= 0.9
    model = SiglipForImageClassification.from_pretrained(folder)
    assert list(model.config.id2label.values()) == names
    peer = transformers.SiglipForImageClassification.from_pretrained(folder)
    assert peer.config.id2label == dict(enumerate(names))


def test_micro_batches_change_no_loss(checkpoint: Path, tmp_path: Path) -> None:
    pictures = class_folders(tmp_path / "train", ["red", "blue"], 5)
    config = replace(run_on(checkpoint, pictures), steps=3)
    assert steps_of(replace(config, micro_batch_size=5))[0] == pytest.approx(steps_of(config)[0], rel=1e-5)


def test_data_without_classes_are_refused(checkpoint: Path, shard: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no classes to learn"):
        train(run_on(checkpoint, shard), tmp_path / "run")


def test_a_classifier_has_no_text_tower_to_train(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="no text tower"):
        replace(run_on(checkpoint, Path("x")), trainable="text")


def test_one_class_alone_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    pictures = class_folders(tmp_path / "train", ["red"], 2)
    with pytest.raises(DataError, match="has one class alone, red; a classifier needs two"):
        train(run_on(checkpoint, pictures), tmp_path / "run")


@pytest.mark.filterwarnings("ignore:.* texts are longer than the 4 tokens")
def test_held_out_numbers_are_those_of_the_classes_learnt(checkpoint: Path, tmp_path: Path) -> None:
    """A table has numbers and no names: 0 is the first class that is learnt, and what has no class is refused."""
    pictures = class_folders(tmp_path / "train", ["blue", "red"], 4)
    rows = [{"image": f"{name}/0.png", "label": number} for number, name in enumerate(["blue", "red", "red"])]
    table = pictures / "held.jsonl"
    table.write_text("".join(json.dumps(row | {"label": min(row["label"], 1)}) + "\n" for row in rows))
    config = replace(run_on(checkpoint, pictures, table), steps=20)
    train(config, tmp_path / "run")
    assert metrics(tmp_path / "run")[-1]["held_out/top1"] == 1.0
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="classes numbered up to 2, and 2 have a name"):
        train(config, tmp_path / "other")
    table.write_text(json.dumps(rows[1]) + "\n")
    with pytest.warns(SiglipWarning, match="no picture is of class 0, blue; classes count from 0"):
        train(replace(config, steps=1), tmp_path / "third")
