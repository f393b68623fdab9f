"""Coloured squares with their names as captions, and a recipe that learns them in a second."""

import io
import json
import signal
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.data import Batch, Loader, open_source
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.learner import Learner
from siglip.training.loop import loader_settings
from siglip.training.report import Reporter
from siglip.training.tasks import build


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No metrics.png, which takes longer than the run, but in tests marked `drawn`."""
    if request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr("siglip.training.report.draw", lambda rows, path: None)


COLOURS = {
    "red": (220, 30, 30), "green": (20, 150, 40), "blue": (30, 50, 220), "yellow": (240, 220, 40),
    "black": (10, 10, 10), "white": (250, 250, 250), "orange": (250, 140, 20), "pink": (250, 150, 200),
}  # fmt: skip


def square(colour: str, number: int) -> bytes:
    """A picture of one colour with a grey bar that differs from picture to picture."""
    picture = Image.new("RGB", (12, 12), COLOURS[colour])
    picture.paste((128, 128, 128), (number % 9, 0, number % 9 + 3, 2))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def write_shard(path: Path, samples: int) -> Path:
    """Sample i has colour i of eight, its name as caption and concept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in range(samples):
            colour = list(COLOURS)[number % len(COLOURS)]
            facts = json.dumps({"concept": colour, "captions": [f"a {colour} square", colour]}).encode()
            for suffix, content in ((".png", square(colour, number)), (".txt", colour.encode()), (".json", facts)):
                header = tarfile.TarInfo(f"{number:04d}{suffix}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    return path


def small_towers(width: int = 16) -> SiglipConfig:
    return SiglipConfig.from_text_vision_configs(
        SiglipTextConfig(
            vocab_size=8000, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=4,
        ),
        SiglipVisionConfig(
            hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2, image_size=8,
            patch_size=4,
        ),
    )  # fmt: skip


def small_run(train: Path, **changes: Any) -> TrainConfig:
    """A run of a second; `changes` replace values of TrainConfig, those of `data` and `optimizer` by `data_...`."""
    config = TrainConfig(
        model=ModelSpec(config=small_towers(), preparation="nano", initial_bias=-2.0),
        data=DataSpec(train=str(train), workers=0),
        optimizer=OptimizerSpec(lr=0.01),
        steps=6,
        batch_size=8,
        log_every=1,
        save_every=2,
    )
    for name, value in changes.items():
        part, _, inner = name.partition("_")
        if part in ("data", "optimizer"):
            config = replace(config, **{part: replace(getattr(config, part), **{inner: value})})
        else:
            config = replace(config, **{name: value})
    return config


def learner_of(config: TrainConfig, cache: ImageCache | None = None) -> Learner:
    """What a run trains, without its folder."""
    model, processor = build(config, labels=open_source(config.data.train).label_names)
    return Learner(model, processor, config, torch.device("cpu"), cache)


def batches(config: TrainConfig) -> Iterator[Batch]:
    source = open_source(config.data.train)
    _, processor = build(config, labels=source.label_names)
    return iter(Loader(source, processor, loader_settings(config)))


def steps_of(config: TrainConfig) -> tuple[list[float], nn.Module]:
    """The losses of a run, and what it ends with, without its folder."""
    learner = learner_of(config)
    losses = [
        learner.update(batch, step)["loss"] for step, batch in zip(range(config.steps), batches(config), strict=False)
    ]
    return losses, learner.plain_copy()


def signal_after(step: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal as soon as the numbers of that step are written."""
    real = Reporter.step

    def told(self: Reporter, done: int, numbers: Mapping[str, float]) -> None:
        real(self, done, numbers)
        if done == step:
            signal.raise_signal(number)

    monkeypatch.setattr(Reporter, "step", told)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in metrics(run)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost small models more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """40 samples."""
    return write_shard(tmp_path / "data" / "train.tar", 40)
