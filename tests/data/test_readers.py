"""Tables of every kind give every row, whole and right, or say which row and what to do about it."""

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siglip.data import Columns, Source, open_source
from siglip.errors import BrokenSample, DataError, SiglipWarning
from tests.data.conftest import png
from tests.data.test_open import colour_of, facts_of, save

TWO = [((1, 0, 0), ("one, first",), -1), ((2, 0, 0), ("two",), -1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2):
        save(tmp_path / f"{number}.png", number)
    return tmp_path


def write(path: Path, content: str | bytes | list[Any] | dict[str, Any]) -> Path:
    data = content if isinstance(content, str | bytes) else json.dumps(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# ---- separated values


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'image,caption\n1.png,"one, first"\n2.png,two\n'),
        ("a.csv", 'image, caption\n1.png, "one, first"\n2.png, two\n'),
        ("a.csv", "image;caption\n1.png;one, first\n2.png;two\n"),
        ("a.csv", "image\tcaption\r\n1.png\tone, first\r\n2.png\ttwo\r\n"),
        ("a.csv", "image_name| comment_number| comment\n1.png| 0| one, first\n2.png| 0| two\n"),
        ("a.tsv", "image\tcaption\n1.png\tone, first\n2.png\ttwo\n"),
        ("a.tsv", 'image,caption\n1.png,"one, first"\n2.png,two\n'),
        ("A.CSV", '\n"Image","Caption"\n1.png,"one, first",,\n\n2.png,two,,\n'),
    ],
)
def test_separators_are_recognised_by_the_header(folder: Path, name: str, content: str) -> None:
    assert facts_of(open_source(write(folder / name, content))) == TWO


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,caption\n1.png,one\n2.png,two, and more\n",
            r"separated by a comma\): 1 rows have more cells than the 2 columns, the first in line 3: "
            r"\['2\.png', 'two', 'and more'\]; put texts that hold the separator into double quotes",
        ),
        ("image;caption\n1.png;one; first\n", r"by a semicolon\): 1 rows have more cells"),
        ("image,caption,caption\n1.png,one,two\n", "has the column 'caption' more than once"),
        ('image,caption\n1.png,"one\n', "close every quote"),
        ("image:caption\n1.png:one\n", "has the columns image:caption; expected one with pictures"),
        (
            "image,caption\n1.png,caf\u00e9\n".encode("cp1252"),
            r"is not UTF-8 text \(byte 0xe9 at 23\); save it as UTF-8",
        ),
        ("image,caption\n1.png,x\n".encode("utf-16-le"), "holds zero bytes, as UTF-16 without a byte order mark does"),
    ],
)
def test_rows_that_would_be_cut_or_guessed_are_named(folder: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(write(folder / "a.csv", content))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_byte_order_marks_are_honoured(folder: Path, encoding: str, name: str) -> None:
    row = {"image": "1.png", "caption": "caf\u00e9"}
    text = {"a.csv": "image,caption\n1.png,caf\u00e9\n", "a.jsonl": json.dumps(row), "a.json": json.dumps([row])}[name]
    assert open_source(write(folder / name, text.encode(encoding))).sample(0).captions == ("caf\u00e9",)


def test_a_cell_may_hold_a_picture_whose_text_is_never_shown(folder: Path) -> None:
    large = base64.b64encode(png(3) + bytes(200_000)).decode()
    content = f"image\tcaption\ndata:image/png;base64,{large}\tthree\ndata:image/png;base64,@\tnone\n"
    source = open_source(write(folder / "a.tsv", content))
    sample = source.sample(0)
    assert (sample.name, colour_of(sample)) == ("row-00000000", (3, 0, 0))
    assert isinstance(sample.image, bytes)
    with pytest.raises(BrokenSample, match="row-00000001: its picture is not valid base64"):
        source.sample(1)
    assert len(source.fingerprint()) == 64


# ---- JSON


@pytest.mark.parametrize(
    "content",
    [
        [{"image": "1.png", "caption": "one, first"}, {"image": "2.png", "caption": ["two"]}],
        {"version": 1, "data": [{"file_name": "1.png", "text": "one, first"}, {"file_name": "2.png", "text": "two"}]},
        {"1.png": "one, first", "2.png": ["two"]},
    ],
)
def test_json_may_be_a_list_of_objects_or_captions_by_picture(folder: Path, content: Any) -> None:
    assert facts_of(open_source(write(folder / "rows.json", content))) == TWO


COCO = {
    "images": [{"id": 7, "file_name": "1.png"}, {"id": 9, "file_name": "2.png"}],
    "annotations": [
        {"image_id": 9, "id": 1, "caption": "two"},
        {"image_id": 7, "id": 2, "caption": "one, first"},
        {"image_id": 7, "id": 3, "caption": "uno"},
    ],
}


@pytest.mark.parametrize("place", ["", "train2017/", "images/", "../train2017/", "../images/train2017/"])
def test_the_captions_of_coco_find_their_pictures(tmp_path: Path, place: str) -> None:
    path = write(tmp_path / "annotations" / "captions_train2017.json", COCO)
    for number in (1, 2):
        save(path.parent / f"{place}{number}.png", number)
    source = open_source(path)
    assert facts_of(source) == [((1, 0, 0), ("one, first", "uno"), -1), ((2, 0, 0), ("two",), -1)]
    assert source.sample(1).facts == {"image_id": 9}


def test_karpathys_split_is_read_part_by_part(tmp_path: Path) -> None:
    parts = ["train", "restval", "test", "train"]
    images = [
        {
            "filepath": "val2014",
            "filename": f"{number}.png",
            "split": part,
            "sentences": [{"raw": f"thing {number}", "tokens": ["thing"]}, {"raw": "some thing"}],
        }
        for number, part in enumerate(parts)
    ]
    for number in range(4):
        save(tmp_path / "images" / "val2014" / f"{number}.png", number)
    path = write(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"})
    for part, numbers in {"train": [0, 3], "restval": [1], "train+restval": [0, 1, 3], "test": [2]}.items():
        source = open_source(f"{path}#{part}")
        assert facts_of(source) == [((n, 0, 0), (f"thing {n}", "some thing"), -1) for n in numbers]
    with pytest.raises(DataError, match=r"no part 'val': it has train, restval, test; write dataset_coco\.json#PART"):
        open_source(f"{path}#val")
    with pytest.raises(DataError, match=r"holds the parts train, restval, test; .*dataset_coco\.json#train"):
        open_source(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**COCO, "annotations": [{"image_id": 7, "bbox": [1, 2]}]}, "annotations without captions"),
        ({**COCO, "annotations": [{"image_id": 8, "caption": "x"}]}, "captions of 1 pictures it does not list"),
        (COCO, r"names pictures such as 1\.png, which lie neither beside it nor in images/"),
        ({"a": 1, "b": {}}, "holds an object with a, b; expected a list of objects"),
        ([1, 2], "holds list; expected a list of objects"),
        ("{", "is not valid JSON"),
    ],
)
def test_json_of_another_shape_is_told(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(write(tmp_path / "captions_x.json", content))


def test_any_table_with_a_column_split_may_be_opened_in_parts(folder: Path) -> None:
    path = write(folder / "a.csv", "image,caption,split\n1.png,one,train\n2.png,two,test\n")
    assert len(open_source(path)) == 2
    assert open_source(f"{path}#test").sample(0).captions == ("two",)
    write(folder / "b.csv", "image,caption\n1.png,one\n")
    with pytest.raises(DataError, match="has no part 'test': it has no column 'split'"):
        open_source(folder / "b.csv#test")


def test_columns_are_refused_where_there_are_none(folder: Path) -> None:
    (folder / "1.txt").write_text("one")
    with pytest.raises(DataError, match="is not a table, so it has no columns to name"):
        open_source(folder, columns=Columns(image="URL"))


# ---- folders


def test_caption_files_are_found_in_upper_case_and_as_json_and_metadata_too(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", 1).with_suffix(".TXT").write_text("one")
    assert open_source(tmp_path / "a").sample(0).captions == ("one",)
    save(tmp_path / "b" / "1.png", 1).with_suffix(".JSON").write_text('{"captions": ["one", "uno"], "width": 10}')
    assert open_source(tmp_path / "b").sample(0).captions == ("one", "uno")
    save(tmp_path / "c" / "1.png", 1)
    write(tmp_path / "c" / "METADATA.CSV", "file_name,text\n1.png,one\n")
    assert open_source(tmp_path / "c").sample(0).captions == ("one",)
    save(tmp_path / "d" / "cat" / "1.png", 1).with_suffix(".json").write_text('{"boxes": []}')
    assert open_source(tmp_path / "d").label_names == ("cat",)


def test_a_caption_file_in_another_encoding_is_a_broken_sample(tmp_path: Path) -> None:
    for number, data in enumerate(("caf\u00e9".encode("utf-16"), "caf\u00e9".encode("cp1252"))):
        save(tmp_path / f"{number}.png", number).with_suffix(".txt").write_bytes(data)
    source = open_source(tmp_path)
    assert source.sample(0).captions == ("caf\u00e9",)
    with pytest.raises(BrokenSample, match=r"1\.png: its caption 1\.txt is not UTF-8 text \(byte 0xe9 at 3\)"):
        source.sample(1)


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (["train/cat/1.png", "train/dog/2.png", "val/cat/3.png"], "train, val"),
        (["Train/cat/1.png", "Test/cat/3.png"], "Test, Train"),
        (["train/cat/1.png", "train/dog/2.png"], "train"),
        (["train/1.png", "val/2.png"], "train, val"),
        (["train/cat/1.png", "val/cat/1.png", "extra/cat/1.png"], "train, val"),
        (["train2017/cat/1.png", "val2017/cat/1.png"], "train2017, val2017"),
        (["eval/cat/1.png", "trainval/cat/1.png"], "eval, trainval"),
        (["hold-out/cat/1.png", "train_1/cat/1.png"], "hold-out, train_1"),
    ],
)
def test_the_parts_of_a_data_set_are_not_classes(tmp_path: Path, files: list[str], parts: str) -> None:
    for file in files:
        save(tmp_path / file, 1)
    first = tmp_path / parts.split(", ")[0]
    with pytest.raises(DataError, match=f"holds {parts}: parts of a data set, not classes; give one of them") as caught:
        open_source(tmp_path)
    assert str(first) in str(caught.value)


def test_captions_of_several_parts_are_not_mixed_and_one_vehicle_called_train_is_a_class(tmp_path: Path) -> None:
    for part in ("train", "val"):
        save(tmp_path / "set" / part / "1.png", 1).with_suffix(".txt").write_text("one")
    with pytest.raises(DataError, match="holds train, val: parts of a data set, which would be mixed"):
        open_source(tmp_path / "set")
    assert len(open_source(tmp_path / "set" / "train")) == 1
    for vehicle in ("train", "bus"):
        save(tmp_path / "vehicles" / vehicle / "1.png", 1)
    assert open_source(tmp_path / "vehicles").label_names == ("bus", "train")


def test_classes_one_folder_deeper_are_told(tmp_path: Path) -> None:
    for file in ("images/cat/1.png", "images/dog/2.png"):
        save(tmp_path / "a" / file, 1)
    with pytest.raises(DataError, match=r"holds one folder, images, and in it cat, dog: give .*a/images for these"):
        open_source(tmp_path / "a")
    for file in ("2019/cat/1.png", "2019/dog/1.png", "2020/cat/2.png", "2020/dog/2.png"):
        save(tmp_path / "b" / file, 1)
    with pytest.warns(SiglipWarning, match=r"b: the classes are 2019, 2020, each with the folders cat, dog; if these"):
        assert open_source(tmp_path / "b").label_names == ("2019", "2020")
    for file in ("cat/1.png", "cat/young/2.png", "dog/young/3.png", "dog/old/4.png"):
        save(tmp_path / "c" / file, 1)
    assert open_source(tmp_path / "c").label_names == ("cat", "dog")


def test_captions_without_a_picture_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 1).with_suffix(".txt").write_text("one")
    open_source(tmp_path)  # nothing to say
    for name in ("2.txt", "3.txt"):
        (tmp_path / name).write_text("alone")
    with pytest.warns(SiglipWarning, match=r"2 \.txt files have no picture of their name, such as 2\.txt"):
        assert len(open_source(tmp_path)) == 1


def test_linked_folders_are_classes_like_others(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png", 1)
    save(tmp_path / "set" / "cat" / "2.png", 2)
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "round").symlink_to(tmp_path / "set")
    source = open_source(tmp_path / "set")
    assert source.label_names == ("cat", "dog")
    assert [source.sample(index).name for index in range(len(source))] == ["cat/2.png", "dog/1.png"]


# ---- what is missing


@pytest.mark.parametrize(
    ("name", "content", "missing"),
    [
        ("a.csv", "image,caption\n1.png,\n2.png,two\n", ["caption"]),
        ("a.csv", "image,prefix,suffix\n1.png,caption en,\n2.png,,\n", ["suffix", "caption"]),
        ("a.csv", "image,question,answer\n1.png,what?,\n1.png,how?, \n2.png,why?,so\n", ["answer", "answer"]),
        (
            "a.json",
            [
                {"image": "1.png", "question": "what?", "answers": []},
                {"image": "1.png", "question": "how?"},
                {"image": "1.png", "question": "why?"},
                {"image": "1.png", "question": "where?", "answers": [{"answer": " "}]},
                {"image": "1.png", "question": "when?", "answers": ["now"]},
                {"image": "2.png", "captions": []},
            ],
            ["answer", "answer", "answer", "answer", "caption"],
        ),
    ],
)
def test_a_row_without_text_is_told_what_it_lacks(folder: Path, name: str, content: Any, missing: list[str]) -> None:
    """Each row by itself: no question takes the place of another."""
    source = open_source(write(folder / name, content))
    reasons: list[str] = []
    for index in range(len(source)):
        try:
            source.sample(index)
        except BrokenSample as error:
            reasons.append(error.reason)
    assert reasons == [f"it has no {what}" for what in missing]


MIXED = [
    {"image": "1.png", "prefix": "caption en", "suffix": "one"},
    {"image": "1.png", "question": "what?", "answers": ["b", "a", "a"]},
    {"image": "1.png", "question": "how?", "answers": ["so"]},
    {"image": "1.png", "prefix": "caption en", "suffix": "first"},
    {"image": "2.png", "question": "why?", "prefix": "question en why?", "answers": ["now"]},
    {"image": "2.png", "question": "where?", "suffix": "there"},
]
# every row with every column, as Parquet has them
FILLED = [{key: row.get(key) for key in ("image", "question", "answers", "prefix", "suffix")} for row in MIXED]
PROMPTS = [
    ("answer en how?", ("so",), ["so"]),
    ("answer en what?", ("a", "b"), ["b", "a", "a"]),
    ("answer en where?", ("there",), None),
    ("caption en", ("one", "first"), None),
    ("question en why?", ("now",), ["now"]),
]


def prompts(source: Source) -> list[tuple[str, tuple[str, ...], Any]]:
    samples = [source.sample(index) for index in range(len(source))]
    # a row whose question is empty asks none
    assert all(sample.facts.get("question") or "question" not in sample.facts for sample in samples)
    return sorted((item.facts["prefix"], item.captions, item.facts.get("answers")) for item in samples)


def test_questions_and_captions_share_a_table(folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist(FILLED), folder / "a.parquet")
    for path in (write(folder / "a.json", MIXED), write(folder / "b.json", FILLED), folder / "a.parquet"):
        assert prompts(open_source(path)) == PROMPTS
    cells = "image,question,answer,prefix,suffix\n1.png,what?,a,,\n1.png,,,caption en,one\n1.png,,,caption en,first\n"
    expected = [("answer en what?", ("a",), ["a"]), ("caption en", ("one", "first"), None)]
    assert prompts(open_source(write(folder / "a.csv", cells))) == expected


def test_questions_are_read_where_rows_hold_their_pictures(folder: Path) -> None:
    """In Parquet, `datasets` and shards, which join no rows."""
    expected = [*PROMPTS[:3], ("caption en", ("first",), None), ("caption en", ("one",), None), PROMPTS[4]]
    held = [{**row, "image": {"bytes": (folder / str(row["image"])).read_bytes()}} for row in FILLED]
    pq.write_table(pa.Table.from_pylist(held), folder / "a.parquet")
    assert prompts(open_source(folder / "a.parquet")) == expected
    assert prompts(open_source(datasets.Dataset.from_list(held))) == expected
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number, row in enumerate(MIXED):
            for suffix, content in (("png", png(1)), ("json", json.dumps(row).encode())):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert prompts(open_source(folder / "a.tar")) == expected


def test_questions_alone_need_no_column_of_captions(folder: Path) -> None:
    """Objects with an answer each, as VQAv2 has them, also as `datasets` turns them into columns."""
    rows = [{"image": "1.png", "question": "what?", "answers": [{"answer": "a", "id": 1}, {"answer": "b", "id": 2}]}]
    columns = [{**rows[0], "answers": {"answer": ["a", "b"], "id": [1, 2]}}]
    for given in (rows, columns):
        expected = [("answer en what?", ("a", "b"), ["a", "b"])]
        assert prompts(open_source(write(folder / "a.json", given))) == expected
        held = [{**row, "image": str(folder / "1.png")} for row in given]
        assert prompts(open_source(datasets.Dataset.from_list(held))) == expected


def test_a_prefix_that_is_no_text_makes_its_row_broken_and_no_other(folder: Path) -> None:
    wrong = [{"image": "1.png", "prefix": prefix, "suffix": "x"} for prefix in (["a"], 5, {"b": 1})]
    source = open_source(write(folder / "a.json", [*wrong, {"image": "2.png", "prefix": "caption en", "suffix": "y"}]))
    for index, told in enumerate(("['a']", "5", "{'b': 1}")):
        with pytest.raises(BrokenSample) as error:
            source.sample(index)
        assert error.value.reason == f"its prefix is {told}, expected a text"
    assert source.sample(3).captions == ("y",)
