"""Packing keeps pictures, captions and facts, and a shard is there whole or not at all."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from siglip.data import Source, open_source
from siglip.data.pack import pack, shrunk
from siglip.errors import DataError, UnreadableImage
from siglip.processing import read_image
from tests.data.conftest import MakeShards, MakeTar, picture, png


def facts_of(source: Source) -> list[tuple[object, ...]]:
    samples = [source.sample(index) for index in range(len(source))]
    return [(sample.image, sample.captions, sample.label, sample.concept) for sample in samples]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_what_is_packed_is_what_was_there(tmp_path: Path, make_tar: MakeTar) -> None:
    facts = {"captions": ["main", "more"], "concept": "c:1", "licence": "CC0", "author": "\u00c9lo\u00efse"}
    jpeg, webp = encoded(picture(7), "JPEG"), encoded(picture(8), "WEBP")
    source = open_source(
        make_tar(
            "s.tar",
            {"a.jpeg": jpeg, "a.txt": "main", "a.json": json.dumps(facts), "b.webp": webp, "b.txt": "b", "b.cls": "2"},
        )
    )
    packed = pack(source, tmp_path / "out", shard_size=1, workers=0)
    assert (packed.shards, packed.samples, packed.broken) == (2, 2, ())
    again = open_source(tmp_path / "out")
    assert facts_of(again) == facts_of(source)
    assert again.sample(0).facts == {"name": "s/a", **facts}
    with tarfile.open(tmp_path / "out" / "shard-000001.tar") as tar:
        assert tar.getnames() == ["00000001.jpg", "00000001.txt", "00000001.json", "00000001.cls"]
    pack(again, tmp_path / "twice", workers=0)
    assert facts_of(open_source(tmp_path / "twice")) == facts_of(source)
    assert open_source(tmp_path / "twice").sample(0).facts["name"] == "s/a", "its first name"


def test_shards_have_their_size_and_workers_change_nothing(tmp_path: Path, make_shards: MakeShards) -> None:
    source = open_source(make_shards([50, 45]))
    done: list[int] = []
    pack(source, tmp_path / "alone", shard_size=40, workers=0, progress=done.append)
    pack(source, tmp_path / "helped", shard_size=40, workers=2)
    assert sum(done) == 95
    manifest = json.loads((tmp_path / "alone" / "shards.json").read_text())
    assert [shard["samples"] for shard in manifest["shards"]] == [40, 40, 15]
    for path in sorted((tmp_path / "alone").iterdir()):
        assert path.read_bytes() == (tmp_path / "helped" / path.name).read_bytes()


def test_classes_and_their_names_survive(tmp_path: Path) -> None:
    for name, number in (("cat", 1), ("polar_bear", 2)):
        (tmp_path / "set" / name).mkdir(parents=True)
        picture(number).save(tmp_path / "set" / name / "1.png")
    source = open_source(tmp_path / "set")
    pack(source, tmp_path / "out", workers=0)
    packed = open_source(tmp_path / "out")
    assert packed.label_names == ("cat", "polar_bear")
    assert [(packed.sample(i).captions, packed.sample(i).label) for i in (0, 1)] == [
        (("a photo of cat.",), 0),
        (("a photo of polar bear.",), 1),
    ]


def test_only_large_pictures_are_resized() -> None:
    small, large = encoded(picture(1, (30, 20)), "JPEG"), encoded(picture(200, (90, 60)), "JPEG")
    assert shrunk(small, 30) == ("jpg", small)
    assert shrunk(large, None) == ("jpg", large)
    suffix, content = shrunk(large, 30)
    with Image.open(io.BytesIO(content)) as image:
        assert (suffix, image.format, image.size) == ("jpg", "JPEG", (30, 20))
    suffix, content = shrunk(encoded(picture(200, (60, 90)), "WEBP"), 30)
    with Image.open(io.BytesIO(content)) as image:
        assert (suffix, image.format, image.size) == ("png", "PNG", (20, 30))
    with pytest.raises(UnreadableImage):
        shrunk(large[:-200], None)


def test_broken_samples_are_left_out_and_named(tmp_path: Path, make_tar: MakeTar) -> None:
    source = open_source(
        make_tar("s.tar", {"a.png": "x", "a.txt": "a", "b.png": png(1), "b.txt": "b", "c.png": png(1)})
    )
    packed = pack(source, tmp_path / "out", workers=0, max_broken=0.9)
    assert packed.samples == 1
    assert [item.name for item in packed.broken] == ["s/a", "s/c"]
    with pytest.raises(DataError, match="2 of 3 samples are broken"):
        pack(source, tmp_path / "strict", workers=0)
    assert not list((tmp_path / "strict").glob("*"))


def test_shards_that_are_there_are_never_mixed_with_new_ones(tmp_path: Path, make_shards: MakeShards) -> None:
    folder = make_shards([2])
    with pytest.raises(DataError, match=r"already holds train-000\.tar"):
        pack(open_source(folder), folder)
    with pytest.raises(DataError, match="must be 1 or more, got 0"):
        pack(open_source(folder), tmp_path / "new", shard_size=0)


def test_a_killed_pack_leaves_whole_shards_and_no_list(tmp_path: Path, make_shards: MakeShards) -> None:
    source = make_shards([300])
    script = f"""
import os, signal, sys
from siglip.data import open_source
from siglip.data.pack import pack
done = []
def progress(count):
    done.append(count)
    if sum(done) > 75:
        os.kill(os.getpid(), signal.SIGKILL)
pack(open_source({str(source)!r}), {str(tmp_path / "out")!r}, shard_size=20, workers=0, progress=progress)
"""
    process = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.returncode == -signal.SIGKILL
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert 1 <= len(shards) < 15, "killed on the way"
    assert not (tmp_path / "out" / "shards.json").exists()
    assert len(open_source(tmp_path / "out")) == 20 * len(shards)


def test_what_is_packed_from_any_format_is_read_again_and_by_the_datasets_library(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    smooth = Image.linear_gradient("L").convert("RGB").resize((32, 24))
    for kind in ("MPO", "JPEG2000", "PNG", "WEBP", "AVIF", "TIFF"):
        options: dict[str, Any] = {"save_all": True, "append_images": [smooth]} if kind == "MPO" else {}
        # the two-picture JPEGs of cameras are named like any other
        suffix = {"MPO": "jpg", "JPEG2000": "jp2"}.get(kind, kind.lower())
        (folder / f"{kind}.{suffix}").write_bytes(encoded(smooth, kind, **options))
        (folder / f"{kind}.TXT").write_text(f"a ramp in {kind}")
    source = open_source(folder)
    packed = pack(source, tmp_path / "out", workers=0)
    assert (packed.samples, packed.broken) == (6, ())
    again = open_source(tmp_path / "out")
    for index in range(6):
        assert again.sample(index).image == source.sample(index).image
        assert again.sample(index).captions == source.sample(index).captions
    shards = {"train": str(tmp_path / "out" / "shard-000000.tar")}
    rows = datasets.load_dataset("webdataset", data_files=shards, split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["txt"] for row in rows] == [again.sample(index).captions[0] for index in range(6)]
    assert {row["jpg"].size for row in rows} == {(32, 24)}


def test_heic_is_packed_as_jpeg_which_needs_no_library_to_be_read(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow_heif reads HEIC; pip install 'siglip[media]'")
    smooth = Image.linear_gradient("L").convert("RGB").resize((64, 48))
    stream = io.BytesIO()
    pillow_heif.from_pillow(smooth).save(stream, quality=95)
    for max_px, size in ((None, (64, 48)), (100, (64, 48)), (32, (32, 24))):
        suffix, content = shrunk(stream.getvalue(), max_px)
        packed = Image.open(io.BytesIO(content))
        assert (suffix, packed.format, packed.size) == ("jpg", "JPEG", size)
        apart = np.asarray(packed.convert("RGB"), np.int16) - np.asarray(smooth.resize(size), np.int16)
        assert np.abs(apart).mean() < 3


def test_pictures_without_a_class_do_not_change_the_members_of_a_set_that_has_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(1).save(tmp_path / f"{name}.png")
    rows = "image,label,text\na.png,ant,one\nb.png,,two\n"
    (tmp_path / "rows.csv").write_text(rows)
    source = open_source(tmp_path / "rows.csv")
    pack(source, tmp_path / "out", workers=0)
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        assert sorted(name.rpartition(".")[2] for name in tar.getnames()) == sorted(2 * ["png", "txt", "json", "cls"])
    assert [open_source(tmp_path / "out").sample(index).label for index in (0, 1)] == [
        source.sample(index).label for index in (0, 1)
    ]


def test_a_picture_of_two_is_resized_to_a_jpeg(tmp_path: Path) -> None:
    two = encoded(picture(7, (64, 48)), "MPO", save_all=True, append_images=[picture(8, (64, 48))])
    suffix, content = shrunk(two, 32)
    assert (suffix, read_image(content).size) == ("jpg", (32, 24))
    assert shrunk(two, None) == ("jpg", two)
