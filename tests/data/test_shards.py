"""Shards: any sample by one read, whether plain, compressed or remote; damage is told, not trained on."""

import gzip
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from siglip.data import Sample, ShardStore, Source, open_source
from siglip.errors import BrokenSample, DataError, DownloadError
from tests.data.conftest import MakeShards, MakeTar, png


def samples_of(source: Source) -> list[Sample]:
    return [source.sample(index) for index in range(len(source))]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address under which `tmp_path` is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def write_manifest(folder: Path, sizes: list[int]) -> None:
    shards = [{"name": f"train-{i:03d}.tar", "samples": size, "bytes": 1} for i, size in enumerate(sizes)]
    (folder / "shards.json").write_text(json.dumps({"shards": shards, "label_names": ["ant", "bee"]}))


def test_all_parts_of_a_sample_are_read_in_any_order(make_tar: MakeTar) -> None:
    facts = {"captions": ["main", "other"], "concept": "set:ant", "label": 1, "licence": "CC0"}
    path = make_tar(
        "odd.tar",
        {
            "./b/two.json": json.dumps({"caption": "only here"}),
            "a.v2.JPG": png(1),
            "./b/two.webp": png(2),
            "a.v2.txt": " main \n",
            "a.v2.json": json.dumps(facts),
            "a.v2.seg.png": png(9),
            "__meta__.info": "x",
        },
    )
    source = open_source(path)
    two, one = source.sample(0), source.sample(1)
    assert (two.name, two.image, two.captions) == ("odd/b/two", png(2), ("only here",))
    assert (one.name, one.image, one.captions) == ("odd/a", png(1), ("main", "other"))
    assert (one.concept, one.label, one.facts) == ("set:ant", 1, facts)
    assert source.sample(1, image=False).image is None
    assert source.sample(1, image=False).captions == one.captions
    with pytest.raises(BrokenSample, match="odd/__meta__: it has no picture"):
        source.sample(2)


def test_long_and_foreign_names_are_read(make_tar: MakeTar) -> None:
    key = "f/" + "x" * 150 + "\u00e4\u732b"
    sample = open_source(make_tar("names.tar", {f"{key}.png": png(1), f"{key}.txt": "a cat"})).sample(0)
    assert sample.name == f"names/{key}"
    assert sample.captions == ("a cat",)


def test_compressed_shards_are_the_same_and_unpacked_once(tmp_path: Path, make_shards: MakeShards) -> None:
    plain = open_source(make_shards([3, 2]))
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        with gzip.open(tmp_path / f"{path.name}.gz", "wb") as file:
            file.write(path.read_bytes())
    packed = open_source(str(tmp_path / "*.tar.gz"))
    assert samples_of(packed) == samples_of(plain)
    assert packed.fingerprint() == plain.fingerprint()
    unpacked = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache/shards/unpacked").glob("*.tar")}
    assert len(unpacked) == 2
    assert samples_of(open_source(str(tmp_path / "*.tar.gz"))) == samples_of(plain)
    assert unpacked == {path: path.stat().st_mtime_ns for path in unpacked}


def test_a_replaced_shard_is_indexed_anew(make_tar: MakeTar) -> None:
    for number in range(2):
        source = open_source(make_tar("s.tar", {f"k{number}.png": png(number), f"k{number}.txt": "x" * (number + 1)}))
        assert [source.sample(0).name, source.sample(0).captions[0]] == [f"s/k{number}", "x" * (number + 1)]


def test_a_shard_needs_its_end_mark_and_no_padding_behind_it(make_tar: MakeTar) -> None:
    text = "x" * 512_001  # at the last member, 1,001 blocks; the header before it is one
    path = make_tar("s.tar", {"k.png": png(0), "k.txt": text})
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + 1001 * 512
    os.truncate(path, end + 512)
    assert open_source(path).sample(0).captions == (text,)
    os.truncate(path, end + 511)
    with pytest.raises(DataError, match=f"has no end mark after byte {end}"):
        open_source(path)


@pytest.mark.parametrize("size", [0, 700, 1024, 1500, 2000, 5 * 512])
def test_a_shard_that_was_cut_is_told_at_opening(make_shards: MakeShards, size: int) -> None:
    path = make_shards([2]) / "train-000.tar"
    os.truncate(path, size)
    with pytest.raises(DataError, match=r"train-000\.tar (is not a complete tar archive|has no end mark)"):
        open_source(path)


def test_a_cut_gzip_file_is_told_and_leaves_nothing_behind(tmp_path: Path, make_shards: MakeShards) -> None:
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(gzip.compress((make_shards([2]) / "train-000.tar").read_bytes())[:-300])
    with pytest.raises(DataError, match=r"cut\.tar\.gz is not a complete gzip file"):
        open_source(path)
    assert not list((tmp_path / "cache").rglob("*.tar"))
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_shards_cut_or_gone_after_opening_are_told(make_shards: MakeShards) -> None:
    folder = make_shards([2, 2])
    source = open_source(folder)
    os.truncate(folder / "train-000.tar", 600)
    with pytest.raises(DataError, match="is shorter than its index says"):
        source.sample(0)
    (folder / "train-001.tar").unlink()
    with pytest.raises(DataError, match=r"train-001\.tar has been removed"):
        source.sample(2)


def test_two_members_of_one_name_are_told(tmp_path: Path, make_tar: MakeTar) -> None:
    first, second = make_tar("one.tar", {"a.png": png(1), "a.txt": "x"}), make_tar("two.tar", {"a.png": png(2)})
    body = first.read_bytes().rstrip(b"\0")
    body += b"\0" * (-len(body) % 512)
    (tmp_path / "joined.tar").write_bytes(body + second.read_bytes())
    with pytest.raises(DataError, match=r"joined\.tar holds a\.png twice"):
        open_source(tmp_path / "joined.tar")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.txt": "x"}, "it has no picture"),
        ({"a.png": "x"}, "it has no caption"),
        ({"a.png": "x", "a.txt": " "}, "it has no caption"),
        ({"a.png": "x", "a.json": '{"prefix": "caption en", "suffix": []}'}, "it has no suffix"),
        ({"a.png": "x", "a.json": '{"question": "what?", "captions": []}'}, "it has no answer"),
        ({"a.png": "x", "a.txt": "x", "a.json": "{"}, "its .json cannot be read"),
        ({"a.png": "x", "a.txt": "x", "a.json": "[]"}, "its .json is not an object"),
        ({"a.png": "x", "a.txt": "x", "a.cls": "cat"}, "its .cls is .*, expected a whole number"),
    ],
)
def test_a_sample_that_cannot_be_used_says_why(make_tar: MakeTar, members: dict[str, str | bytes], reason: str) -> None:
    source = open_source(make_tar("s.tar", members))
    with pytest.raises(BrokenSample, match=f"s/a: {reason}") as caught:
        source.sample(0)
    assert caught.value.name == "s/a"


def test_remote_shards_are_counted_by_their_manifest_and_fetched_when_needed(
    tmp_path: Path, make_shards: MakeShards, server: str
) -> None:
    folder = make_shards([3, 2])
    write_manifest(folder, [3, 2])
    source = open_source(f"{server}/shards")
    fetched = tmp_path / "cache/shards/fetched"
    assert len(source) == 5
    assert source.label_names == ("ant", "bee")
    assert not fetched.exists()
    assert source.sample(4) == open_source(folder).sample(4)
    assert len(list(fetched.glob("*.tar"))) == 1
    source.prepare([0, 4])
    assert len(list(fetched.glob("*.tar"))) == 2


def test_remote_shards_without_a_manifest_are_indexed_at_once(make_shards: MakeShards, server: str) -> None:
    folder = make_shards([3, 2])
    assert samples_of(open_source(f"{server}/shards/train-{{000..001}}.tar")) == samples_of(open_source(folder))
    for spec in (f"file://{folder}", f"file://{folder}/*.tar"):
        assert samples_of(open_source(spec)) == samples_of(open_source(folder))


def test_remote_shards_are_shuffled_in_windows(make_shards: MakeShards) -> None:
    folder = make_shards([10] * 6)
    shards = [index // 10 for index in open_source(f"file://{folder}", window=1).order(0, 0)]
    assert sum(a != b for a, b in pairwise(shards)) == 5
    with_default = open_source(f"file://{folder}").order(0, 0)
    assert sorted(with_default) == list(range(60))
    assert len({index // 10 for index in with_default[:10]}) > 1


def test_the_cache_of_remote_shards_stays_small_and_samples_stay_right(tmp_path: Path, make_shards: MakeShards) -> None:
    folder = make_shards([2] * 4)
    size = (folder / "train-000.tar").stat().st_size
    store = ShardStore(tmp_path / "small", fetched_bytes=2 * size)
    source = open_source(f"file://{folder}", store=store)
    for index in (0, 2, 4, 6, 1, 3, 5, 7, 0):
        assert source.sample(index).captions[0] == f"thing {index}"
        assert len(list((tmp_path / "small/fetched").glob("*.tar"))) <= 2


def test_the_shard_unused_for_longest_makes_room(tmp_path: Path, make_shards: MakeShards) -> None:
    folder = make_shards([2] * 4)
    store = ShardStore(tmp_path / "small", fetched_bytes=2 * (folder / "train-000.tar").stat().st_size)
    source = open_source(f"file://{folder}", store=store)

    def kept() -> set[Path]:
        return set((tmp_path / "small/fetched").glob("*.tar"))

    def long_before() -> None:
        # times of files may be coarse: whatever is here was used long before what comes next
        for age, path in enumerate(sorted(kept(), key=lambda path: path.stat().st_mtime_ns, reverse=True)):
            os.utime(path, (1000 - age, 1000 - age))

    def fetched_by(index: int) -> tuple[set[Path], set[Path]]:
        long_before()
        before = kept()
        source.sample(index)
        return kept() - before, before - kept()

    (first,), _ = fetched_by(0)
    (second,), _ = fetched_by(2)
    long_before()
    source.sample(1)  # of the first shard, which is now the one used last
    (third,), gone = fetched_by(4)
    assert gone == {second}
    assert kept() == {first, third}
    assert fetched_by(6)[1] == {first}


def test_remote_trouble_is_one_error(make_shards: MakeShards, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siglip.data.store.time.sleep", lambda _: None)
    folder = make_shards([1])
    write_manifest(folder, [1, 1])
    with pytest.raises(DownloadError, match=r"train-001\.tar could not be fetched \(FileNotFoundError"):
        open_source(f"{server}/shards").sample(1)
    with pytest.raises(DownloadError, match=r"could not be (fetched|listed)"):
        open_source(f"{server.rsplit(':', 1)[0]}:9/x-{{0..1}}.tar")
    with pytest.raises(DataError, match=r"cannot be opened: .*pip install 'siglip\[remote\]'"):
        open_source("nosuch://bucket/train.tar")
    write_manifest(folder, [5])
    with pytest.raises(DataError, match=r"holds 1 samples, shards\.json says 5"):
        open_source(f"{server}/shards").sample(0)
    (folder / "shards.json").write_text("[]")
    with pytest.raises(DataError, match=r"shards\.json is not a list of shards"):
        open_source(f"{server}/shards")


# ---- which members belong together

ONE, TWO, MASK = png(1), png(2), png(9)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # names that differ only behind their first dot
        (
            {"a.b.png": ONE, "a.b.txt": "one", "a.c.png": TWO, "a.c.txt": "two"},
            {"a.b": (ONE, "one"), "a.c": (TWO, "two")},
        ),
        (
            {"v1.0.png": ONE, "v1.1.png": TWO, "v1.0.json": '{"caption": "one"}', "v1.1.json": '{"caption": "two"}'},
            {"v1.0": (ONE, "one"), "v1.1": (TWO, "two")},
        ),
        # what stands beside a sample does not take its place, in whatever order
        ({"k.mask.png": MASK, "k.png": ONE, "k.txt": "one"}, {"k": (ONE, "one")}),
        ({"k.alt.txt": "other", "k.seg.png": MASK, "k.txt": "one", "k.png": ONE}, {"k": (ONE, "one")}),
        ({"k.png": ONE, "k.alt.txt": "other", "k.txt": "one"}, {"k": (ONE, "one")}),
        ({"k.depth.png": MASK, "k.seg.png": MASK, "k.png": ONE, "k.txt": "one"}, {"k": (ONE, "one")}),
        # one picture and one text are a sample, whatever their second names
        ({"k.1024.png": ONE, "k.txt": "one"}, {"k": (ONE, "one")}),
        ({"k.en.txt": "one", "k.PNG": ONE}, {"k": (ONE, "one")}),
        (
            {"d.e/k.png": ONE, "d.e/k.txt": "one", "d.f/k.png": TWO, "d.f/k.txt": "two"},
            {"d.e/k": (ONE, "one"), "d.f/k": (TWO, "two")},
        ),
    ],
)
def test_members_are_joined_to_samples_as_they_are_meant(
    make_tar: MakeTar, members: dict[str, str | bytes], expected: dict[str, tuple[bytes, str]]
) -> None:
    source = open_source(make_tar("s.tar", members))
    samples = [source.sample(index) for index in range(len(source))]
    assert {item.name.removeprefix("s/"): (item.image, item.captions[0]) for item in samples} == expected


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": ONE, "a.txt": "1", "a.2.png": TWO, "a.2.txt": "2"}, r"of a belong together.*a\.2\.image, a\.2\.txt"),
        ({"a.l.png": ONE, "a.r.png": TWO, "a.txt": "both"}, "of a belong together.*a.l.image"),
        ({"a.png": ONE, "a.en.txt": "one", "a.de.txt": "eins"}, "of a belong together.*a.de.txt"),
        ({"a.png": ONE, "a.x.png": MASK, "a.x.txt": "mask"}, "of a belong together"),
        ({"a.jpg": ONE, "a.png": MASK, "a.txt": "one"}, "two members for the picture of a, the second is a.png"),
        ({"a.png": ONE, "a.txt": "one", "a.TXT": "two"}, "two members for the txt of a, the second is a.TXT"),
    ],
)
def test_members_that_cannot_be_told_apart_are_named(
    make_tar: MakeTar, members: dict[str, str | bytes], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(make_tar("s.tar", members))


def test_captions_in_other_encodings_are_read_by_their_mark_or_counted_never_guessed(make_tar: MakeTar) -> None:
    members: dict[str, str | bytes] = {}
    text = "caf\u00e9"
    encodings = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "utf-16-le")
    for number, encoding in enumerate(encodings):
        members |= {f"{number}.png": ONE, f"{number}.txt": text.encode(encoding)}
    source = open_source(make_tar("s.tar", members))
    assert [source.sample(index).captions for index in range(4)] == 4 * [(text,)]
    with pytest.raises(BrokenSample, match=r"s/4: its \.txt is not UTF-8 text \(byte 0xe9 at 3\); save it as UTF-8"):
        source.sample(4)
    with pytest.raises(BrokenSample, match=r"s/5: its \.txt is not UTF-8 text|holds zero bytes"):
        source.sample(5)
