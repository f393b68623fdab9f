"""A classifier learns the classes of a folder of folders."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from siglip.classifier import Classifier
from siglip.cli.main import main
from siglip.data import open_source
from siglip.embedder import Embedder
from siglip.errors import ConfigError, DataError, SiglipWarning
from siglip.evaluation.probe import fit_probe
from siglip.model import SiglipForImageClassification, SiglipVisionModel
from siglip.model.classifier import pooling_as_layer
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig, train
from siglip.training.tasks import build
from siglip.training.tasks.classes import ClassTask
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
    with pytest.raises(DataError, match="has only one class, red; a classifier needs two"):
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


def test_the_start_is_the_linear_probe_of_the_same_vectors_also_in_transformers(
    checkpoint: Path, tmp_path: Path
) -> None:
    """A part of the patch tokens stays in the vectors, so that scores differ in the second digit."""
    pictures = class_folders(tmp_path / "train", sorted(COLOURS), 8)
    config = run_on(checkpoint, pictures)
    config = replace(config, model=replace(config.model, classifier_start="probe"))
    source = open_source(config.data.train)
    model, processor = build(config, labels=source.label_names)
    ClassTask.begin(model, processor, config, source, torch.device("cpu"))
    embedder = Embedder.from_pretrained(checkpoint, dtype="float32")
    files = [str(pictures / source.sample(index, image=False).name) for index in range(len(source))]
    labels = np.array([source.sample(index, image=False).label for index in range(len(source))])
    vectors = embedder.embed_images(files).vectors
    fitted, _ = fit_probe(vectors, labels, len(COLOURS))
    pixels = processor.image_processor([Image.open(file) for file in files], return_tensors="pt").pixel_values
    assert isinstance(model, SiglipForImageClassification)
    with torch.no_grad():
        ours = model.eval()(pixels).logits.softmax(dim=1)
    theirs = torch.from_numpy(fitted.scores(vectors)).softmax(dim=1)
    assert (ours - theirs).abs().max() < 0.1
    assert (ours.argmax(dim=1) == theirs.argmax(dim=1)).float().mean() >= 0.95
    model.save_pretrained(tmp_path / "model")
    peer = transformers.SiglipForImageClassification.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        torch.testing.assert_close(peer(pixels).logits, model(pixels).logits, rtol=1e-3, atol=1e-3)


def test_behind_the_pooling_layer_every_token_is_the_pooled_vector(checkpoint: Path) -> None:
    tower = SiglipVisionModel.from_pretrained(checkpoint)
    pixels = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pooled = tower(pixels).pooler_output
        assert pooled is not None
        tokens = pooling_as_layer(tower)(pixels).last_hidden_state
    expected = torch.nn.functional.layer_norm(pooled, pooled.shape[1:])
    assert (tokens - expected[:, None]).abs().max() < 0.15
    assert pooling_as_layer(pooling_as_layer(tower)).config.num_hidden_layers == 3


def test_every_checkpoint_of_a_classifier_becomes_a_classifier(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = class_folders(tmp_path / "train", ["blue", "red"], 4)
    config = replace(run_on(checkpoint, pictures, pictures), steps=4, save_every=2, evaluate_every=2)
    run = tmp_path / "run"
    with pytest.warns(SiglipWarning, match="texts are longer than the 4 tokens"):
        exported = train(config, run)
    for name in ("checkpoints/step-00000004", "export", "best"):
        assert main(["convert", str(run / name), str(tmp_path / name), "--to", "huggingface"]) == 0
    for name in ("checkpoints/step-00000004", "export"):
        ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / name, exported))
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
        assert ours.keys() == theirs.keys()
    assert Classifier.from_pretrained(tmp_path / "best").labels == ["blue", "red"]
    assert main(["convert", str(exported), str(tmp_path / "other"), "--to", "open_clip"]) == 1
    assert "the layout open_clip cannot hold a classifier; write it as huggingface" in capsys.readouterr().err
    assert main(["classify", str(pictures), "--model", str(run / "best")]) == 1
    assert "is a checkpoint of a run, not yet a model; `siglip convert" in capsys.readouterr().err
    assert (
        main(["convert", str(run / "checkpoints" / "step-00000003"), str(tmp_path / "no"), "--to", "huggingface"]) == 1
    )
    assert "there are: step-00000002, step-00000004" in capsys.readouterr().err
