"""A trained classifier is used without labels: by every command that can, and by name in the others' errors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from siglip import Classifier, SiglipForImageClassification, SiglipProcessor, pipeline
from siglip.cli.main import main
from siglip.errors import CheckpointError, InputError
from tests.peers import perturb

LABELS = ["bird", "big fish", "plant"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a run exports: a classifier of three classes, with the whole processor."""
    model = perturb(SiglipForImageClassification.from_pretrained("nano", labels=LABELS))
    model.save_pretrained(tmp_path / "export")
    SiglipProcessor.from_pretrained("nano").save_pretrained(tmp_path / "export")
    return tmp_path / "export"


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Two pictures of the class bird and one of "big fish", in a folder for each."""
    names: list[str] = []
    for number, label in enumerate(["bird", "bird", "big_fish"]):
        names.append(str(tmp_path / "data" / label / f"{number}.png"))
        Path(names[-1]).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8).repeat(6, 0).repeat(6, 1)
        Image.fromarray(pixels).save(names[-1])
    return names


@pytest.fixture
def expected(folder: Path, pictures: list[str]) -> np.ndarray:
    """Softmax of the model's own scores."""
    model = SiglipForImageClassification.from_pretrained(folder)
    inputs = SiglipProcessor.from_pretrained(folder)(
        images=[Image.open(name) for name in pictures], return_tensors="pt"
    )
    with torch.no_grad():
        return model(**inputs).logits.softmax(dim=1).numpy()


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_classify_prints_the_softmax_of_its_classes(
    folder: Path, pictures: list[str], expected: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, "classify", *pictures, "--model", folder, "--dtype", "float32")
    assert "templates" not in found
    for record, row in zip(found["images"], expected, strict=True):
        got = {entry["label"]: entry["probability"] for entry in record["labels"]}
        assert got == pytest.approx(dict(zip(LABELS, row.tolist(), strict=True)), rel=1e-4)
        assert list(got.values()) == sorted(got.values(), reverse=True)


def test_info_names_the_classes_and_embed_writes_the_mean_of_the_patch_tokens(
    folder: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = printed(capsys, "info", folder)
    assert facts["classifies"] == LABELS
    written = printed(capsys, "embed", *pictures, "--model", folder, "--dtype", "float32", "--out", tmp_path / "v")
    assert written["fingerprint"] == facts["fingerprint"]
    model = SiglipForImageClassification.from_pretrained(folder)
    inputs = SiglipProcessor.from_pretrained(folder)(
        images=[Image.open(name) for name in pictures], return_tensors="pt"
    )
    with torch.no_grad():
        mean = model.vision_model(**inputs).last_hidden_state.mean(dim=1)
    unit = (mean / mean.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), unit, atol=1e-5)


def test_evaluate_matches_the_classes_of_the_data_by_name(
    folder: Path, pictures: list[str], expected: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", folder, "--task", "classification", "--data", tmp_path / "data", "--dtype", "float32")
    found = printed(capsys, *words)["models"][0]["numbers"]
    right = expected.argmax(axis=1) == [0, 0, 1]
    assert found["top1"] == pytest.approx(right.mean())
    assert found["mean_per_class"] == pytest.approx((right[:2].mean() + right[2]) / 2)


def test_the_function_of_the_scores_and_their_number_are_the_peers(folder: Path, pictures: list[str]) -> None:
    peer = transformers.pipeline("image-classification", str(folder), dtype=torch.float32)
    classify = pipeline("image-classification", folder, dtype="float32", device="cpu")
    for options in ({}, {"function_to_apply": "sigmoid"}, {"function_to_apply": "none", "top_k": 2}, {"top_k": None}):
        found, expected = (pipe(pictures, batch_size=2, **options) for pipe in (classify, peer))
        assert [[entry["label"] for entry in row] for row in found] == [[e["label"] for e in row] for row in expected]
        for mine, theirs in zip(found, expected, strict=True):
            assert [e["score"] for e in mine] == pytest.approx([e["score"] for e in theirs], rel=1e-3, abs=1e-4)
    with pytest.raises(InputError, match="function is one of softmax, sigmoid, none, got 'tanh'"):
        classify(pictures, function_to_apply="tanh")
    with pytest.raises(InputError, match="top_k must be at least 1, got -1"):
        classify(pictures, top_k=-1)
    with pytest.raises(
        InputError, match="the pipeline image-classification has no keyword 'topk'; did you mean 'top_k'"
    ):
        classify(pictures, topk=1)


def test_the_pipeline_of_a_folder_or_of_a_model_gives_the_best_classes(
    folder: Path, pictures: list[str], expected: np.ndarray
) -> None:
    model, processor = SiglipForImageClassification.from_pretrained(folder), SiglipProcessor.from_pretrained(folder)
    for classify in (
        pipeline("image-classification", folder, dtype="float32"),
        pipeline("image-classification", model, processor=processor, dtype="float32"),
        pipeline("image-classification", Classifier(model, processor.image_processor, dtype="float32")),
    ):
        (best,) = classify(pictures[0], top_k=1)
        assert best["label"] == LABELS[expected[0].argmax()]
        assert best["score"] == pytest.approx(expected[0].max(), rel=1e-4)
    with pytest.raises(InputError, match="cannot prepare its input; pass processor="):
        pipeline("image-classification", model)


@pytest.mark.parametrize(
    ("problem_type", "finish"),
    [("multi_label_classification", torch.sigmoid), ("regression", lambda scores: scores)],
)
def test_several_labels_are_judged_each_for_itself_and_numbers_stay_numbers(
    folder: Path, pictures: list[str], problem_type: str, finish: Any
) -> None:
    model = SiglipForImageClassification.from_pretrained(folder, problem_type=problem_type)
    processor = SiglipProcessor.from_pretrained(folder).image_processor
    ((_, row),) = Classifier(model, processor, dtype="float32").stream_probabilities(pictures[:1])
    with torch.no_grad():
        scores = model(processor(Image.open(pictures[0]), return_tensors="pt").pixel_values).logits
    np.testing.assert_allclose(row, finish(scores)[0].numpy(), rtol=1e-4)


@pytest.mark.parametrize("problem_type", [None, "regression"])
def test_one_score_is_a_regression_as_in_transformers(
    folder: Path, pictures: list[str], problem_type: Any, tmp_path: Path
) -> None:
    model = SiglipForImageClassification.from_pretrained(folder, num_labels=1, problem_type=problem_type)
    torch.nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path)
    processor = SiglipProcessor.from_pretrained(folder).image_processor
    pixels = processor([Image.open(picture) for picture in pictures[:2]], return_tensors="pt").pixel_values
    peer: Any = transformers.SiglipForImageClassification.from_pretrained(tmp_path).eval()
    for given in ([1.5, -2.0], [0, 0], [[0.5], [3.0]]):
        ours, theirs = (each(pixels, labels=torch.tensor(given)).loss for each in (model, peer))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    ((_, row),) = Classifier(model, processor, dtype="float32").stream_probabilities(pictures[:1])
    np.testing.assert_allclose(row, model(pixels[:1]).logits[0].detach().numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        ["score", "samples/cat.jpg", "--texts", "a cat", "--model"],
        ["embed", "--texts", "a cat", "--out", "vectors", "--model"],
        ["evaluate", "--task", "retrieval", "--data", "samples"],
        ["index", "samples", "--library", "library", "--model"],
    ],
)
def test_commands_that_need_texts_say_what_it_is_in_one_line(
    folder: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "samples" / "cat.jpg")
    (tmp_path / "samples" / "cat.txt").write_text("a cat")
    monkeypatch.chdir(tmp_path)
    assert main([*words, str(folder)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "classifier" in line]
    assert "is a classifier of 3 classes and reads no texts; use it with `siglip classify` without labels" in line


def test_labels_for_a_classifier_and_none_for_another_model_are_usage_errors(
    folder: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", pictures[0], "--labels", "cat", "--model", str(folder)]) == 2
    assert "its own 3 classes, bird, big fish, plant; leave out --labels" in capsys.readouterr().err
    assert main(["classify", pictures[0]]) == 2
    assert "--labels --labels-file is required" in capsys.readouterr().err
    assert main(["evaluate", "nano", "--task", "classification", "--data", str(Path(pictures[0]).parents[1])]) == 1
    assert "nano is not a trained classifier" in capsys.readouterr().err


def test_the_stored_head_stays_unless_other_classes_are_named(folder: Path) -> None:
    stored = SiglipForImageClassification.from_pretrained(folder)
    same = SiglipForImageClassification.from_pretrained(folder, labels=LABELS)
    assert torch.equal(same.classifier.weight, stored.classifier.weight)
    assert SiglipForImageClassification.from_pretrained(folder, labels=["a", "b", "c"]).classifier.weight.norm() == 0
    with pytest.raises(CheckpointError, match="is a classifier of 3 classes"):
        SiglipProcessor.from_pretrained(folder)
        pipeline("zero-shot-image-classification", folder)
