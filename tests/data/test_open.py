"""What is found decides how it is read; every kind of source gives the same samples."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from siglip.data import Columns, Sample, Source, Subset, open_source
from siglip.data.open import expand_braces
from siglip.errors import BrokenSample, DataError
from siglip.processing import read_image
from tests.data.conftest import MakeShards, MakeTar, picture, png


def facts_of(source: Source) -> list[tuple[tuple[int, ...], tuple[str, ...], int]]:
    """Colour, captions and label of all samples."""
    samples = [source.sample(index) for index in range(len(source))]
    return [(colour_of(sample), sample.captions, sample.label) for sample in samples]


def colour_of(sample: Sample) -> tuple[int, ...]:
    assert sample.image is not None
    colour = read_image(sample.image).getpixel((0, 0))
    assert isinstance(colour, tuple)
    return tuple(int(value) for value in colour)


def save(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path)
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        lines = [list(rows[0]), *(row.values() for row in rows)]
        path.write_text("".join(separator.join(f'"{cell}"' for cell in line) + "\n" for line in lines))
    return path


def test_captions_beside_pictures_belong_to_them(tmp_path: Path) -> None:
    save(tmp_path / "b.png", 2).with_suffix(".txt").write_text(" two \n")
    save(tmp_path / "deep" / "er" / "a.PNG", 1).with_suffix(".txt").write_text("one")
    (tmp_path / ".hidden").mkdir()
    save(tmp_path / ".hidden" / "c.png", 3)
    save(tmp_path / "d.png", 4)
    source = open_source(tmp_path)
    assert [source.sample(index).name for index in (0, 2)] == ["b.png", "deep/er/a.PNG"]
    assert colour_of(source.sample(2)) == (1, 0, 0)
    assert source.sample(0).captions == ("two",)
    with pytest.raises(BrokenSample, match=r"d\.png: its caption d\.txt cannot be read"):
        source.sample(1)


def test_class_folders_give_labels_and_captions_by_template(tmp_path: Path) -> None:
    save(tmp_path / "polar_bear" / "x" / "1.png", 5)
    save(tmp_path / "cat" / "1.png", 6)
    save(tmp_path / "cat" / "2.png", 7)
    source = open_source(tmp_path, templates=["a {}.", "{} drawn"])
    assert source.label_names == ("cat", "polar_bear")
    assert facts_of(source) == [
        ((6, 0, 0), ("a cat.", "cat drawn"), 0),
        ((7, 0, 0), ("a cat.", "cat drawn"), 0),
        ((5, 0, 0), ("a polar bear.", "polar bear drawn"), 1),
    ]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_join_the_captions_of_a_picture(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / "pictures" / "a.png", 1)
    save(tmp_path / "pictures" / "b.png", 2)
    rows = [
        {"filepath": "pictures/a.png", "title": "one, first", "licence": "CC0"},
        {"filepath": "pictures/b.png", "title": "two", "licence": "MIT"},
        {"filepath": "pictures/a.png", "title": "the first", "licence": "CC0"},
    ]
    source = open_source(write_rows(tmp_path / f"rows.{suffix}", rows))
    assert facts_of(source) == [((1, 0, 0), ("one, first", "the first"), -1), ((2, 0, 0), ("two",), -1)]
    assert source.sample(1).name == "pictures/b.png"
    assert source.sample(1).facts == {"licence": "MIT"}


def test_a_jsonl_row_may_hold_a_list_of_captions_and_a_concept(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    rows = [{"image": "a.png", "captions": ["one", " ", None, "one", "uno\ud800"], "concept": "number:1"}]
    sample = open_source(write_rows(tmp_path / "rows.jsonl", rows)).sample(0)
    assert sample.captions == ("one", "uno?")
    assert sample.concept == "number:1"


def test_named_columns_win_and_wrong_ones_are_told(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    path = write_rows(tmp_path / "rows.csv", [{"image": "missing.png", "file": "a.png", "text": "x", "note": "y"}])
    source = open_source(path, columns=Columns(image="file", caption="note"))
    assert facts_of(source) == [((1, 0, 0), ("y",), -1)]
    with pytest.raises(DataError, match="has no column 'notes', only image, file, text, note"):
        open_source(path, columns=Columns(caption="notes"))
    with pytest.raises(DataError, match=r"columns a, b; expected one with pictures"):
        open_source(write_rows(tmp_path / "odd.csv", [{"a": "1", "b": "2"}]))


def test_a_class_column_of_words_is_numbered_in_alphabetical_order(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    rows = [{"file_name": f"{number}.png", "class": word} for number, word in enumerate(["pig", "cat", "pig"])]
    write_rows(tmp_path / "metadata.csv", rows)
    source = open_source(tmp_path)
    assert source.label_names == ("cat", "pig")
    assert [(captions, label) for _, captions, label in facts_of(source)] == [
        (("a photo of pig.",), 1),
        (("a photo of cat.",), 0),
        (("a photo of pig.",), 1),
    ]


def test_parquet_and_datasets_may_hold_the_pictures_themselves(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png(number), "path": None}, "caption": f"thing {number}"} for number in (3, 4)]
    expected = [((3, 0, 0), ("thing 3",), -1), ((4, 0, 0), ("thing 4",), -1)]
    assert facts_of(open_source(write_rows(tmp_path / "rows.parquet", rows))) == expected
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    dataset = datasets.Dataset.from_list(rows, features=features)
    source = open_source(dataset)
    assert facts_of(source) == expected
    assert isinstance(source.sample(0).image, bytes), "decoding is left to us"
    dataset.save_to_disk(str(tmp_path / "saved"))
    assert facts_of(open_source(tmp_path / "saved")) == expected


def test_classes_of_a_dataset_keep_their_numbers() -> None:
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})
    rows = [{"img": {"bytes": png(1), "path": None}, "label": 1}, {"img": {"bytes": png(2), "path": None}, "label": 0}]
    source = open_source(datasets.Dataset.from_list(rows, features=features))
    assert source.label_names == ("zebra", "ant")
    assert facts_of(source) == [((1, 0, 0), ("a photo of ant.",), 1), ((2, 0, 0), ("a photo of zebra.",), 0)]


def test_several_parts_of_a_saved_dataset_are_told(tmp_path: Path) -> None:
    part = datasets.Dataset.from_list([{"image": "a.png", "text": "x"}])
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"holds the parts train, test; open one of them, such as .*train"):
        open_source(tmp_path / "saved")
    assert len(open_source(tmp_path / "saved" / "test")) == 1


def test_streamed_datasets_are_refused() -> None:
    stream = datasets.Dataset.from_list([{"image": "a.png", "text": "x"}]).to_iterable_dataset()
    with pytest.raises(DataError, match="load it without streaming=True"):
        open_source(stream)


def test_braces_stand_for_numbers_and_choices() -> None:
    assert expand_braces("a{08..10}b{x,y}") == ["a08bx", "a08by", "a09bx", "a09by", "a10bx", "a10by"]
    assert expand_braces("plain.tar") == ["plain.tar"]


def test_shards_are_found_by_folder_pattern_and_name(make_shards: MakeShards) -> None:
    folder = make_shards([2, 3, 1])
    (folder / ".half.tar").write_bytes(b"not finished")
    for spec, count in {"": 6, "/train-001.tar": 3, "/train-00[01].tar": 5, "/train-{001..002}.tar": 4}.items():
        assert len(open_source(f"{folder}{spec}")) == count
    with pytest.raises(DataError, match=r"1 of 4 shards are missing, the first is .*train-003\.tar"):
        open_source(f"{folder}/train-{{000..003}}.tar")


def test_numbered_classes_get_the_names_beside_the_shards(tmp_path: Path, make_tar: MakeTar) -> None:
    members = {"0.png": png(0), "0.cls": "1", "1.png": png(1), "1.cls": "0", "1.txt": "told", "2.png": png(2)}
    path = make_tar("set/test/0.tar", {**members, "2.json": '{"label": 1}', "3.png": png(3), "3.cls": "7"})
    (tmp_path / "set" / "classnames.txt").write_text("ant\nbee\n")
    source = open_source(path)
    assert source.label_names == ("ant", "bee")
    assert [(source.sample(i).captions, source.sample(i).label) for i in range(3)] == [
        (("a photo of bee.",), 1),
        (("told",), 0),
        (("a photo of bee.",), 1),
    ]
    with pytest.raises(BrokenSample, match="0/3: it has no caption"):
        source.sample(3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "", "has no rows"),
        ("rows.csv", "image,caption\n", "has no rows"),
        ("rows.csv", 'image,caption\n"a.png,x\n', "cannot be read as a table"),
        ("rows.jsonl", '{"image": 1}\nnot json\n', "line 2 is not valid JSON"),
        ("rows.jsonl", "[1, 2]\n", "line 1 is .*; expected an object"),
        ("rows.parquet", "PAR", "cannot be read as a Parquet file"),
        ("notes.md", "hello", "is not a kind of data that can be read; expected shards"),
        ("shard.tar", "hello", "is not a complete tar archive"),
        ("shard.tar.gz", "hello", "is not a complete gzip file"),
    ],
)
def test_files_that_are_not_what_they_seem_are_told(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value)


def test_folders_without_data_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files; expected shards"):
        open_source(tmp_path)
    save(tmp_path / "a.png", 1)
    save(tmp_path / "cat" / "b.png", 1)
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match=r"holds 2 \.png, 1 \.md, 1 pictures outside of class folders"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="is missing"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"got list"):
        open_source(["a.tar"])
    with pytest.raises(DataError, match=r"template 'a photo' has no \{\}"):
        open_source(tmp_path, templates=["a photo"])


def test_fingerprints_change_with_the_data_only(tmp_path: Path, make_shards: MakeShards) -> None:
    folder = make_shards([2, 2])
    first = open_source(folder).fingerprint()
    assert open_source(folder).fingerprint() == first
    assert open_source(folder / "train-000.tar").fingerprint() != first
    save(tmp_path / "classes" / "cat" / "1.png", 1)
    classes = open_source(tmp_path / "classes").fingerprint()
    assert open_source(tmp_path / "classes").fingerprint() == classes
    save(tmp_path / "classes" / "cat" / "2.png", 1)
    assert open_source(tmp_path / "classes").fingerprint() != classes


def test_a_subset_renumbers_its_samples_and_keeps_the_order_of_the_whole(make_shards: MakeShards) -> None:
    whole = open_source(make_shards([5, 5]))
    part = Subset(whole, [7, 2, 9])
    assert [part.sample(index).captions[0] for index in range(3)] == ["thing 7", "thing 2", "thing 9"]
    chosen = {7: 0, 2: 1, 9: 2}
    assert part.order(4, 5).tolist() == [chosen[index] for index in whole.order(4, 5).tolist() if index in chosen]
    assert len({part.fingerprint(), Subset(whole, [7, 2]).fingerprint(), whole.fingerprint()}) == 3
    with pytest.raises(DataError, match=r"samples 0 to 9, the subset asks for \[10\]"):
        Subset(whole, [1, 10])
    with pytest.raises(DataError, match="given twice"):
        Subset(whole, [1, 1])


def test_a_web_address_in_a_table_is_fetched_only_when_asked(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), "red").save(tmp_path / "a.png")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{web.server_port}"
        (tmp_path / "t.csv").write_text(f"image,caption\n{address}/a.png,red\n{address}/b.png,gone\n")
        with pytest.raises(BrokenSample, match="is a web address, which is fetched only when asked for"):
            open_source(tmp_path / "t.csv").sample(0)
        asked = open_source(tmp_path / "t.csv", columns=Columns(fetch=True))
        assert asked.sample(0).image == (tmp_path / "a.png").read_bytes()
        with pytest.raises(BrokenSample, match="404"):
            asked.sample(1)
        web.shutdown()
