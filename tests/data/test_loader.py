"""Batches depend on the source and the settings alone: not on ranks, workers, or where a run was stopped."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siglip.data import Augment, Batch, Loader, LoaderSettings, Source, Subset, one_pass, open_source
from siglip.data.batch import BatchMaker
from siglip.data.order import Visit
from siglip.data.workers import BrokenLedger, in_workers
from siglip.errors import ConfigError, DataError, DownloadError, SiglipWarning
from siglip.processing import SiglipProcessor
from tests.conftest import ROOT
from tests.data.conftest import MakeShards, MakeTar, png

# the source is opened once for all examples of a property
ONE_SOURCE = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
SETTINGS = LoaderSettings(batch_size=6, seed=7, workers=0, augment=Augment(crop_area=0.5, flip=0.5, randaugment=1))


@pytest.fixture
def source(make_shards: MakeShards) -> Source:
    return open_source(make_shards([5, 9, 6]))


@pytest.fixture
def damaged(make_tar: MakeTar) -> Source:
    """Twenty samples, of which number 3 is no picture, 4 has no caption, and 11 has no readable .json."""
    members: dict[str, str | bytes] = {}
    for number in range(20):
        members[f"k{number:02d}.png"] = b"not a picture" if number == 3 else png(number)
        members[f"k{number:02d}.txt"] = "" if number == 4 else f"thing {number}"
        members[f"k{number:02d}.json"] = "{" if number == 11 else "{}"
    return open_source(make_tar("damaged.tar", members))


def taken(loader: Loader, count: int) -> list[Batch]:
    return list(islice(loader, count))


def rows(batches: list[Batch]) -> list[tuple[str, bytes, list[int], int, int]]:
    """Everything that is known of each row."""
    found: list[tuple[str, bytes, list[int], int, int]] = []
    for batch in batches:
        assert batch.pixels is not None
        for row, name in enumerate(batch.names):
            pixels, ids = batch.pixels[row].numpy().tobytes(), batch.input_ids[row].tolist()
            found.append((name, pixels, ids, int(batch.text_ids[row]), int(batch.indices[row])))
    return found


def test_a_batch_holds_what_the_samples_say(make_tar: MakeTar, processor: SiglipProcessor) -> None:
    members = {
        "a.png": png(1), "a.txt": "A  penguin", "a.json": '{"concept": "animal:penguin"}',
        "b.png": png(2), "b.txt": "a penguin", "b.cls": "3",
        "c.png": png(3), "c.txt": "a teapot", "c.json": '{"concept": "animal:penguin", "captions": ["x"]}',
    }  # fmt: skip
    source = open_source(make_tar("s.tar", members))
    (batch,) = one_pass(source, processor, LoaderSettings(workers=0))
    assert batch.names == ("s/a", "s/b", "s/c")
    assert batch.indices.tolist() == [0, 1, 2]
    assert batch.labels.tolist() == [-1, 3, -1]
    assert torch.equal(
        batch.input_ids, processor.tokenizer(["A  penguin", "a penguin", "a teapot"], return_tensors="pt").input_ids
    )
    expected = processor.image_processor(list(map(png, (1, 2, 3))), return_tensors="pt").pixel_values
    assert batch.pixels is not None
    assert torch.equal(processor.image_processor.normalize(batch.pixels), expected)
    text_a, text_b, text_c = batch.text_ids.tolist()
    image_a, image_b, image_c = batch.image_ids.tolist()
    assert text_a == text_b != text_c
    assert image_a == image_c != image_b == -1
    assert min(text_a, text_c, image_a) >= 0


def test_ids_of_texts_and_concepts_stay_the_same_in_every_version(
    make_tar: MakeTar, processor: SiglipProcessor
) -> None:
    source = open_source(make_tar("s.tar", {"a.png": png(1), "a.txt": "a cat", "a.json": '{"concept": "a cat"}'}))
    (batch,) = one_pass(source, processor, LoaderSettings(workers=0))
    assert batch.text_ids.tolist() == [5867787368591784627]
    assert batch.image_ids.tolist() == [4984823251587804274]


@ONE_SOURCE
@given(world_size=st.integers(1, 6), batch_size=st.integers(6, 25), seed=st.integers(0, 9))
def test_ranks_share_every_batch_and_every_pass_visits_all(
    source: Source, processor: SiglipProcessor, world_size: int, batch_size: int, seed: int
) -> None:
    setting = LoaderSettings(batch_size=batch_size, seed=seed, workers=0, images=False)
    count = 2 * len(source) // batch_size + 1
    alone = taken(Loader(source, processor, setting), count)
    ranks = [
        taken(Loader(source, processor, setting, rank=rank, world_size=world_size), count) for rank in range(world_size)
    ]
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        assert len(whole) == batch_size
        assert [name for part in parts for name in part.names] == list(whole.names)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    visited = [name for batch in alone for name in batch.names]
    for epoch in range(len(visited) // len(source)):
        names = visited[epoch * len(source) : (epoch + 1) * len(source)]
        assert len(set(names)) == len(source)


@ONE_SOURCE
@given(before=st.integers(0, 8), old_size=st.integers(1, 7), new_size=st.integers(1, 5), world_size=st.integers(1, 3))
def test_resuming_anywhere_continues_at_the_exact_sample(
    source: Source, processor: SiglipProcessor, before: int, old_size: int, new_size: int, world_size: int
) -> None:
    setting = replace(SETTINGS, batch_size=1)
    steps = before * old_size + 2 * new_size * world_size
    uninterrupted = rows(taken(Loader(source, processor, setting), steps))
    first = Loader(source, processor, replace(setting, batch_size=old_size))
    start = rows(taken(first, before))
    resumed = [
        Loader(source, processor, replace(setting, batch_size=new_size * world_size), rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for loader in resumed:
        loader.load_state_dict(first.state_dict())
    ranks = [taken(loader, 2) for loader in resumed]
    rest = [row for step in range(2) for batches in ranks for row in rows([batches[step]])]
    assert start + rest == uninterrupted


def test_workers_change_nothing_and_the_position_is_what_was_used_not_what_was_prefetched(
    source: Source, processor: SiglipProcessor
) -> None:
    alone = Loader(source, processor, SETTINGS)
    helped = Loader(source, processor, replace(SETTINGS, workers=2))
    expected = rows(taken(alone, 12))
    assert rows(taken(helped, 5)) == expected[: 5 * 6]
    assert helped.state_dict() == {"consumed": 30, "seed": 7, "samples": 20}
    assert helped.epoch == 1.5
    resumed = Loader(source, processor, replace(SETTINGS, workers=1))
    resumed.load_state_dict(helped.state_dict())
    assert rows(taken(resumed, 7)) == expected[5 * 6 :]


def test_another_seed_or_source_cannot_be_resumed(source: Source, processor: SiglipProcessor) -> None:
    state = Loader(source, processor, SETTINGS).state_dict()
    with pytest.raises(DataError, match="had seed=7, this one has seed=8"):
        Loader(source, processor, replace(SETTINGS, seed=8)).load_state_dict(state)
    with pytest.raises(DataError, match="had samples=20, this one has samples=19"):
        Loader(Subset(source, range(19)), processor, SETTINGS).load_state_dict(state)


def test_captions_are_drawn_evenly_and_do_not_depend_on_pictures(source: Source, processor: SiglipProcessor) -> None:
    setting = replace(SETTINGS, batch_size=20)
    without = taken(Loader(source, processor, replace(setting, images=False)), 90)
    assert without[0].pixels is None
    drawn = Counter(tuple(ids) for batch in without for ids in batch.input_ids.tolist())
    # 60 captions, 30 expected of each with a standard deviation of 4.5
    assert len(drawn) == 60
    assert 12 < min(drawn.values()) < max(drawn.values()) < 48
    withal = taken(Loader(source, processor, setting), 3)
    assert [batch.input_ids.tolist() for batch in withal] == [batch.input_ids.tolist() for batch in without[:3]]


def test_a_broken_sample_is_replaced_by_the_next_good_one(
    damaged: Source, processor: SiglipProcessor, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "broken.tsv"
    loader = Loader(damaged, processor, replace(SETTINGS, batch_size=20, max_broken=0.3), broken_log=log)
    first, second = taken(loader, 2)
    for batch in (first, second):
        assert Counter(batch.indices.tolist()) == Counter([*range(20), 5, 5, 12]) - Counter([3, 4, 11])
    assert {item.name for item in first.broken} == {"damaged/k03", "damaged/k04", "damaged/k11"}
    assert [item.name for item in loader.broken] == [item.name for item in dict.fromkeys(first.broken)]
    lines = dict(line.split("\t") for line in log.read_text().splitlines())
    assert len(lines) == 3
    assert lines["damaged/k04"] == "it has no caption"
    assert "no picture" in lines["damaged/k03"]


def test_too_many_broken_samples_stop_the_run(damaged: Source, processor: SiglipProcessor) -> None:
    # number 3 leads to 4, so a pass of 20 visits meets four broken samples
    with pytest.raises(
        DataError, match=r"3 of \d+ samples are broken, more than the share max_broken=0\.1; the last is"
    ):
        taken(Loader(damaged, processor, replace(SETTINGS, batch_size=1, max_broken=0.1)), 20)
    for workers in (0, 1):
        allowed = replace(SETTINGS, batch_size=1, max_broken=0.2, workers=workers, images=True)
        assert len(taken(Loader(damaged, processor, allowed), 20)) == 20


def test_nothing_but_broken_samples_stops_the_run_also_from_a_worker(
    make_tar: MakeTar, processor: SiglipProcessor
) -> None:
    source = open_source(make_tar("bad.tar", {f"{number}.png": b"x" for number in range(3)}))
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"^20 samples in a row are broken, the last is bad/") as caught:
            taken(Loader(source, processor, LoaderSettings(batch_size=3, workers=workers, max_broken=1.0)), 1)
        assert "\n" not in str(caught.value)


def test_a_remote_shard_that_is_missing_stops_the_run_when_it_is_needed_not_before(
    make_shards: MakeShards, processor: SiglipProcessor
) -> None:
    folder = make_shards([4, 4])
    shards = [{"name": f"train-00{number}.tar", "samples": 4, "bytes": 1} for number in range(2)]
    (folder / "shards.json").write_text(json.dumps({"shards": shards}))
    (folder / "train-001.tar").unlink()
    source = open_source(f"file://{folder}", window=1)
    seed = next(seed for seed in range(20) if source.order(seed, 0)[0] < 4)
    batches = iter(Loader(source, processor, LoaderSettings(batch_size=2, seed=seed, workers=0)))
    assert {name for _ in range(2) for name in next(batches).names} == {f"train-000/key{number}" for number in range(4)}
    with pytest.raises(DownloadError, match=r"train-001\.tar could not be fetched"):
        next(batches)


def test_one_pass_visits_all_in_order_without_augmentation(source: Source, processor: SiglipProcessor) -> None:
    for world_size in (1, 3):
        for workers in (0, 1):
            setting = replace(SETTINGS, workers=workers)
            batches = [
                batch
                for rank in range(world_size)
                for batch in one_pass(source, processor, setting, rank=rank, world_size=world_size)
            ]
            found = rows(batches)
            assert [index for *_, index in found] == list(range(20))
            assert found[4][1] == processor.image_processor.pixels(png(4)).tobytes()
            assert found[4][2] == processor.tokenizer("thing 4").input_ids
            assert max(map(len, batches)) == 6 // world_size


def test_one_pass_leaves_broken_samples_out(damaged: Source, processor: SiglipProcessor, tmp_path: Path) -> None:
    setting = replace(SETTINGS, batch_size=2, max_broken=0.15)
    batches = list(one_pass(damaged, processor, setting, ledger=BrokenLedger(tmp_path / "log", 0.15, 20)))
    assert [index for batch in batches for index in batch.indices.tolist()] == sorted({*range(20)} - {3, 4, 11})
    assert len((tmp_path / "log").read_text().splitlines()) == 3
    with pytest.raises(DataError, match=r"more than the share max_broken=0\.1"):
        list(one_pass(damaged, processor, replace(setting, max_broken=0.1)))


def test_making_batches_leaves_the_global_generator_alone(source: Source, processor: SiglipProcessor) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    taken(Loader(source, processor, replace(SETTINGS, workers=1)), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_can_be_started_without_forking(source: Source, processor: SiglipProcessor) -> None:
    maker = BatchMaker(source, processor, SETTINGS, training=True)
    visits = [Visit(0, sample) for sample in range(8)]
    assert rows([pickle.loads(pickle.dumps(maker)).batch(visits)]) == rows([maker.batch(visits)])


def test_workers_do_not_hear_the_signals_of_our_group(source: Source, processor: SiglipProcessor) -> None:
    loader = Loader(source, processor, replace(SETTINGS, workers=1))
    iterator: Iterator[Batch] = iter(loader)
    next(iterator)
    children = [int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]
    assert any(os.getpgid(pid) == pid for pid in children), "a worker leads a group of its own"


def test_a_batch_moves_between_devices_with_all_its_tensors(source: Source, processor: SiglipProcessor) -> None:
    batch = taken(Loader(source, processor, SETTINGS), 1)[0].to("meta")
    assert batch.pixels is not None
    assert {tensor.device.type for tensor in (batch.pixels, batch.input_ids, batch.text_ids, batch.labels)} == {"meta"}
    assert len(batch.names) == len(batch) == 6


def test_wrong_settings_are_errors(source: Source, processor: SiglipProcessor) -> None:
    for wrong in ({"batch_size": 0}, {"workers": -1}, {"seed": -1}, {"max_broken": 1.5}):
        with pytest.raises(ConfigError, match="LoaderSettings"):
            LoaderSettings(**wrong)
    with pytest.raises(ConfigError, match="a batch of 6 pairs cannot be shared by 7 processes"):
        Loader(source, processor, SETTINGS, rank=0, world_size=7)
    with pytest.raises(DataError, match="the source has no samples"):
        Loader(Subset(source, []), processor, SETTINGS)


def test_a_batch_larger_than_the_set_is_said_once_by_the_first_process(
    make_shards: MakeShards, processor: SiglipProcessor
) -> None:
    source = open_source(make_shards([5]))
    with pytest.warns(SiglipWarning, match="a batch of 6 holds more samples than the 5 there are") as caught:
        for rank in range(2):
            Loader(source, processor, replace(SETTINGS, batch_size=6), rank=rank, world_size=2)
    assert len(caught) == 1
    Loader(source, processor, replace(SETTINGS, batch_size=5))


SMALL_SHM = """
import sys, numpy as np
from siglip.data.workers import in_workers
import torch
def make(number): return torch.full((4_000_000,), number)
print([int(made.sum()) for made in in_workers(make, range(3), 1)])
"""


def test_batches_larger_than_dev_shm_arrive() -> None:
    """32 MB each, in a mount namespace of its own whose /dev/shm has 1 MB, as a container's may have."""
    script = f"mount -t tmpfs -o size=1m tmpfs /dev/shm && exec {sys.executable} -c '{SMALL_SHM}'"
    namespace = ["unshare", "-rm", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("this system lets nobody make a mount namespace")
    done = subprocess.run([*namespace, script], cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.stdout.split() == ["[0,", "4000000,", "8000000]"], done.stderr


def test_what_workers_make_comes_without_shared_memory() -> None:
    for made in in_workers(lambda number: torch.full((2,), number), range(2), 1):
        assert not made.is_shared()
