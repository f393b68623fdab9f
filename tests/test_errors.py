import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import siglip
from siglip import AutoModel, AutoModelForImageClassification, AutoProcessor, Embedder, SiglipConfig
from siglip.data import open_source
from siglip.errors import Failure, SiglipError, did_you_mean
from siglip.search.query import parse_query
from siglip.search.where import parse_where
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig
from siglip.training.recipe import load_recipe

# values of every kind are given on purpose
pipeline: Any = siglip.pipeline

KNOWN = [
    "optimizer.lr",
    "optimizer.betas",
    "data.train",
    "--labels",
    "--labels-file",
    "google/siglip-base",
    "Penguin.PNG",
]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--lables", "--labels"),
        ("lr", "optimizer.lr"),
        ("siglip-bsae", "google/siglip-base"),
        ("penguin.png", "Penguin.PNG"),
        ("optimiser.lr", "optimizer.lr"),
        ("quux", None),
        ("--out", None),
        ("epochs", None),
        ("", None),
    ],
)
def test_a_guess_is_made_only_where_a_word_is_close(word: str, meant: str | None):
    assert did_you_mean(word, KNOWN) == meant


def test_a_failure_travels_between_processes_and_into_json():
    failure = Failure("a.png", "is empty", 3)
    assert pickle.loads(pickle.dumps(failure)) == failure
    assert failure.record() == {"name": "a.png", "reason": "is empty"}


CONFIG = TrainConfig(model=ModelSpec(source="nano"), data=DataSpec(train="samples"))
LONG = {"words": "ab " * 3400, "one word": "q" * 10_000, "a path": "/".join(["w" * 100] * 30)}


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
@pytest.mark.parametrize(
    "call",
    [
        lambda value: AutoModel.from_pretrained(value),
        lambda value: AutoModel.from_pretrained("nano", dtype=value),
        lambda value: AutoModel.from_pretrained("nano", device_map=value),
        lambda value: AutoModel.from_pretrained("nano", **{value: 1}),
        lambda value: AutoModelForImageClassification.from_pretrained("nano", id2label={value: "a"}),
        lambda value: AutoProcessor.from_pretrained(value),
        lambda value: AutoProcessor.from_pretrained("nano")(text="a", padding=value),
        lambda value: AutoProcessor.from_pretrained("nano")(images=f"data:image/png;base64,{value}"),
        lambda value: pipeline(value, "nano"),
        lambda value: pipeline("image-feature-extraction", "nano", device=value),
        lambda value: pipeline("image-feature-extraction", "nano", **{value: 1}),
        lambda value: Embedder.from_pretrained("nano").embed_labels(["a"], value),
        lambda value: pipeline("zero-shot-image-classification", "nano")(value, ["a"]),
        lambda value: pipeline("zero-shot-image-classification", "nano")("a.png", [value, value]),
        lambda value: SiglipConfig(**{value: 1}),
        lambda value: SiglipConfig(problem_type=value),
        lambda value: SiglipConfig.from_dict({"model_type": value}),
        lambda value: open_source(value),
        lambda value: open_source("samples", templates=[value]),
        lambda value: OptimizerSpec(name=value),
        lambda value: OptimizerSpec(lr=value),
        lambda value: load_recipe(Path(value)),
        lambda value: CONFIG.with_overrides({value: "1"}),
        lambda value: CONFIG.with_overrides({"steps": value}),
        lambda value: CONFIG.with_overrides({"optimizer.lr": "9" * 400}),
        lambda value: parse_query(f'"{value}'),
        lambda value: parse_where(value),
    ],
)
def test_what_was_given_is_cut_in_messages(call: Callable[[str], object], value: str) -> None:
    with pytest.raises((SiglipError, OSError)) as caught:
        call(value)
    error = caught.value
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    assert len(said) < 700
