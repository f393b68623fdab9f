"""A locked image tower runs once for each picture, and the losses are those of running it in every step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from siglip.data import Augment, LoaderSettings, open_source
from siglip.errors import ConfigError
from siglip.model import SiglipModel
from siglip.processing import SiglipProcessor
from siglip.training import TrainConfig, train
from siglip.training.frozen import ImageCache
from siglip.training.tasks import build
from tests.training.conftest import losses, small_run, write_shard

CPU = torch.device("cpu")


def locked_run(shard: Path) -> TrainConfig:
    return small_run(shard, trainable="text", steps=4, optimizer_lr=1e-3)


def pair_of_towers(config: TrainConfig) -> tuple[SiglipModel, SiglipProcessor]:
    model, processor = build(config)
    assert isinstance(model, SiglipModel)
    return model, processor


def filled(folder: Path, config: TrainConfig) -> tuple[ImageCache, list[int]]:
    """A cache of the run's pictures, and the numbers of samples it told about."""
    told: list[int] = []
    cache = ImageCache(folder, open_source(config.data.train), *pair_of_towers(config))
    cache.fill(LoaderSettings(batch_size=16, workers=0), CPU, told.append)
    return cache, told


def file_of(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_cached_and_running_towers_give_the_same_losses(shard: Path, tmp_path: Path) -> None:
    config = locked_run(shard)
    train(config, tmp_path / "runs" / "cached")
    train(replace(config, data=replace(config.data, cache_images=False)), tmp_path / "runs" / "running")
    assert losses(tmp_path / "runs" / "cached") == pytest.approx(losses(tmp_path / "runs" / "running"), rel=1e-5)
    assert file_of(tmp_path / "runs" / "image-embeds").stat().st_size == 40 * (16 * 4 + 1)


def test_a_locked_tower_sees_without_dropout(shard: Path, tmp_path: Path) -> None:
    """The vectors of a tower whose attention drops nine tenths while it trains are those of the tower at rest."""
    config = locked_run(shard)
    assert config.model.config is not None
    vision = replace(config.model.config.vision_config, attention_dropout=0.9)
    noisy = replace(config, model=replace(config.model, config=replace(config.model.config, vision_config=vision)))
    model, processor = pair_of_towers(noisy)
    model.train()
    source = open_source(config.data.train)
    cache = ImageCache(tmp_path, source, model, processor)
    cache.fill(LoaderSettings(batch_size=16, workers=0), CPU, lambda _: None)
    model.eval()
    pictures = [source.sample(index).image for index in range(3)]
    with torch.no_grad():
        features = model.get_image_features(processor(images=pictures, return_tensors="pt")["pixel_values"])
    torch.testing.assert_close(cache.rows(torch.arange(3)), F.normalize(features, dim=-1))


def test_a_later_run_looks_the_vectors_up(shard: Path, tmp_path: Path) -> None:
    """Other vectors in the file give other losses, so it is the file that is used."""
    config = locked_run(shard)
    train(config, tmp_path / "one")
    vectors = np.memmap(file_of(tmp_path / "image-embeds"), np.float32, "r+", shape=(40, 16))
    vectors[:] = vectors[::-1].copy()
    vectors.flush()
    train(config, tmp_path / "two")
    assert losses(tmp_path / "two")[0] != pytest.approx(losses(tmp_path / "one")[0], rel=1e-3)


def test_rows_are_the_unit_vectors_of_the_pictures(shard: Path, tmp_path: Path) -> None:
    config = locked_run(shard)
    cache, told = filled(tmp_path / "vectors", config)
    assert sum(told) == 40
    model, processor = pair_of_towers(config)
    image = open_source(str(shard)).sample(7).image
    assert image is not None
    with torch.no_grad():
        vector = F.normalize(model.get_image_features(processor(images=image, return_tensors="pt").pixel_values))
    torch.testing.assert_close(
        cache.rows(torch.tensor([3, 7])), torch.stack([cache.rows(torch.tensor([3]))[0], vector[0]])
    )


def test_filling_goes_on_where_it_was_stopped(shard: Path, tmp_path: Path) -> None:
    config = locked_run(shard)
    expected = filled(tmp_path / "vectors", config)[0].rows(torch.arange(40)).clone()
    path = file_of(tmp_path / "vectors")
    vectors = np.memmap(path, np.float32, "r+", shape=(40, 16))
    flags = np.memmap(path, np.uint8, "r+", offset=40 * 16 * 4)
    vectors[10:] = np.nan
    flags[10:] = 0
    vectors[3] = 0.25  # done, so it stays
    cache, told = filled(tmp_path / "vectors", config)
    assert told[0] == 10
    assert sum(told) == 40
    rows = cache.rows(torch.arange(40))
    assert torch.equal(rows[10:], expected[10:])
    assert rows[3].eq(0.25).all()


def test_other_weights_preparation_or_data_have_a_file_of_their_own(shard: Path, tmp_path: Path) -> None:
    config = locked_run(shard)
    folder = tmp_path / "vectors"

    def count(config: TrainConfig) -> int:
        filled(folder, config)
        return len(list(folder.iterdir()))

    assert count(config) == 1
    assert count(replace(config, optimizer=replace(config.optimizer, lr=0.5), batch_size=4)) == 1
    assert count(replace(config, seed=1)) == 2  # other fresh weights
    other = write_shard(tmp_path / "other" / "train.tar", 16)
    assert count(replace(config, data=replace(config.data, train=str(other)))) == 3
    model, processor = pair_of_towers(config)
    settings = replace(processor.image_processor.settings, resample="bilinear")
    changed = SiglipProcessor(type(processor.image_processor)(settings), processor.tokenizer)
    ImageCache(folder, open_source(str(shard)), model, changed).fill(LoaderSettings(workers=0), CPU, lambda done: None)
    assert len(list(folder.iterdir())) == 4


def test_broken_pictures_are_left_out_of_training(shard: Path, tmp_path: Path) -> None:
    data = shard.read_bytes()
    start = data.index(b"\x89PNG")
    shard.write_bytes(data[:start] + bytes(20) + data[start + 20 :])
    config = locked_run(shard)
    cache = ImageCache(tmp_path / "vectors", open_source(str(shard)), *pair_of_towers(config))
    cache.fill(LoaderSettings(workers=0, max_broken=0.1), CPU, lambda done: None)
    assert len(cache.subset()) == 39
    assert cache.subset().sample(0).name.endswith("0001")


def test_varied_pictures_cannot_be_cached(shard: Path) -> None:
    config = locked_run(shard)
    with pytest.raises(ConfigError, match=r"data\.cache_images=false"):
        replace(config, data=replace(config.data, augment=Augment(flip=0.5)))
    replace(config, data=replace(config.data, augment=Augment(flip=0.5), cache_images=False))
