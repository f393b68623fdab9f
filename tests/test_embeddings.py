"""Vectors come back from disk as they were written, and files that do not fit are refused."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from siglip.embeddings import Embeddings, Maker
from siglip.errors import DataError, Failure, InputError

MAKER = Maker("nano", "f" * 64)
# a name that is not UTF-8, which a file may have
NAMES = ("a.png", "caf\u00e9 \u732b.png", os.fsdecode(b"\xff.png"))


@pytest.fixture
def embeddings() -> Embeddings:
    vectors = np.eye(3, 5, dtype=np.float32)
    return Embeddings(vectors, np.array([0, 2, 3]), (Failure("b.png", "broken", 1),), NAMES, "image", MAKER)


@pytest.mark.parametrize("name", ["v", "v.npy", "v.jsonl", "v.parquet", "deep/er.v"])
def test_vectors_names_kind_and_fingerprint_come_back(embeddings: Embeddings, tmp_path: Path, name: str) -> None:
    embeddings.save(tmp_path / name)
    found = Embeddings.load(tmp_path / name)
    np.testing.assert_array_equal(found.vectors, embeddings.vectors)
    assert found.indices.tolist() == [0, 1, 2] and found.failures == ()
    assert found.maker is not None
    assert (found.kind, found.maker.name, found.fingerprint) == ("image", "nano", "f" * 64)
    assert found.names == (NAMES if "parquet" not in name else (*NAMES[:2], "\\xff.png"))


def test_the_rows_are_found_in_either_form_and_never_two_at_once(embeddings: Embeddings, tmp_path: Path) -> None:
    replace(embeddings, maker=Maker("nano", "e" * 64)).save(tmp_path / "v")
    embeddings.save(tmp_path / "v.parquet")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["v.npy", "v.parquet"]
    assert Embeddings.load(tmp_path / "v").fingerprint == "f" * 64


def test_no_rows_come_back_as_none(tmp_path: Path) -> None:
    none = Embeddings(np.zeros((0, 5), np.float32), np.zeros(0, np.int64), (), (), "text", MAKER)
    none.save(tmp_path / "v")
    assert Embeddings.load(tmp_path / "v").vectors.shape == (0, 5)


def test_files_that_do_not_fit_are_errors(embeddings: Embeddings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"v\.npy and .*v\.parquet are not what `siglip embed` writes: .*No such file"):
        Embeddings.load(tmp_path / "v")
    embeddings.save(tmp_path / "v")
    rows = (tmp_path / "v.jsonl").read_text()
    for wrong in (rows + rows, rows.replace("f" * 64, "e" * 64, 1)):
        (tmp_path / "v.jsonl").write_text(wrong)
        with pytest.raises(
            DataError, match=r"holds float32 \[3, 5\] and .* rows of . models; expected float32 vectors"
        ):
            Embeddings.load(tmp_path / "v")
    for wrong in ("{}\n", "[]\n", "x"):
        (tmp_path / "v.jsonl").write_text(wrong)
        with pytest.raises(DataError, match="are not what `siglip embed` writes"):
            Embeddings.load(tmp_path / "v")
    np.save(tmp_path / "v.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match="are not what"):
        Embeddings.load(tmp_path / "v")


def test_a_folder_in_the_way_is_told(embeddings: Embeddings, tmp_path: Path) -> None:
    (tmp_path / "v.npy").mkdir()
    with pytest.raises(InputError, match=r"v\.npy is a folder; choose another name"):
        embeddings.save(tmp_path / "v")


def test_each_row_of_the_file_says_what_it_is(embeddings: Embeddings, tmp_path: Path) -> None:
    embeddings.save(tmp_path / "v")
    lines = (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1]) == {
        "row": 1, "name": NAMES[1], "kind": "image", "model": "nano", "fingerprint": "f" * 64
    }  # fmt: skip
    assert NAMES[1] in lines[1]


def test_rows_are_read_as_from_an_array(embeddings: Embeddings) -> None:
    assert embeddings.shape == (3, 5)
    assert [row.tolist() for row in embeddings] == np.eye(3, 5).tolist()
    assert embeddings[1].tolist() == [0, 1, 0, 0, 0] and embeddings[-1].tolist() == [0, 0, 1, 0, 0]
    assert embeddings[1:].tolist() == np.eye(3, 5)[1:].tolist()
    assert embeddings[np.array([True, False, True])].tolist() == np.eye(3, 5)[[0, 2]].tolist()
    with pytest.raises(IndexError):
        embeddings[3]


def test_rows_of_a_model_nobody_knows_are_not_saved(embeddings: Embeddings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not known which model made these vectors; embed again"):
        replace(embeddings, maker=None).save(tmp_path / "v")
    assert list(tmp_path.iterdir()) == []


def test_the_model_of_rows_is_its_fingerprint_whatever_it_is_called(embeddings: Embeddings, tmp_path: Path) -> None:
    embeddings.save(tmp_path / "v")
    rows = (tmp_path / "v.jsonl").read_text(encoding="utf-8")
    (tmp_path / "v.jsonl").write_text(rows.replace('"nano"', '"copies/nano"', 1), encoding="utf-8")
    assert Embeddings.load(tmp_path / "v").fingerprint == "f" * 64


def test_the_fingerprint_is_computed_once_when_asked_for_and_a_copy_leaves_the_model_behind(
    embeddings: Embeddings,
) -> None:
    asked: list[str] = []

    def fingerprint() -> str:  # cannot be pickled
        asked.append("f" * 64)
        return asked[-1]

    ours = replace(embeddings, maker=Maker("nano", fingerprint))
    assert len(ours) == 3 and asked == []
    found = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(found.vectors, embeddings.vectors)
    assert (found.names, found.failures, found.kind) == (NAMES, embeddings.failures, "image")
    assert (found.maker.name, found.fingerprint) == ("nano", "f" * 64)
    assert ours.fingerprint == "f" * 64 and len(asked) == 1
