"""Sources of every kind, with something broken in them, become vectors and what is known of each picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siglip.data import open_source
from siglip.embedder import Embedder
from siglip.errors import DataError
from siglip.evaluation import embed_source
from tests.evaluation.conftest import hand_made


def save(path: Path, colour: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (colour, 255 - colour, 7)).save(path)
    return path


def test_broken_samples_are_left_out_told_and_counted_by_the_progress(tmp_path: Path, embedder: Embedder) -> None:
    for number in range(7):
        save(tmp_path / f"{number}.png", 30 * number).with_suffix(".txt").write_text(f"number {number}")
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "4.txt").write_text(" ")
    done: list[int] = []
    pictures = embed_source(embedder, open_source(tmp_path), done.append)
    good = [0, 2, 3, 5, 6]
    assert pictures.indices.tolist() == good
    assert pictures.names == tuple(f"{number}.png" for number in good)
    assert pictures.captions == tuple((f"number {number}",) for number in good)
    assert pictures.labels.tolist() == [-1] * 5
    assert sorted(item.name for item in pictures.broken) == ["1.png", "4.png"]
    assert sum(done) == 7
    alone = embedder.embed_images([tmp_path / f"{number}.png" for number in good])
    assert np.allclose(pictures.vectors, alone.vectors, atol=1e-5)


def test_class_folders_give_labels(tmp_path: Path, embedder: Embedder) -> None:
    for name in ("pig", "cat", "cat"):
        save(tmp_path / name / f"{len(list(tmp_path.rglob('*.png')))}.png", 9)
    pictures = embed_source(embedder, open_source(tmp_path))
    assert pictures.labels.tolist() == [0, 0, 1]


def test_numbered_classes_without_names_anywhere_take_those_given(tmp_path: Path, embedder: Embedder) -> None:
    rows = [{"image": save(tmp_path / f"{number}.png", number).name, "label": number % 2} for number in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pictures = embed_source(embedder, open_source(tmp_path / "rows.jsonl", label_names=["ant", "bee"]))
    assert pictures.labels.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match=r"none of the 3 pictures could be read, the first is 0\.png: it has no cap"):
        embed_source(embedder, open_source(tmp_path / "rows.jsonl"))


def test_some_of_the_pictures_keep_what_belongs_to_them() -> None:
    pictures = hand_made(np.eye(4), captions=[["a"], ["b"], ["c"], ["d"]], labels=[-1, 1, -1, 0])
    known = pictures.labelled()
    assert known.indices.tolist() == [10, 30]
    assert (known.names, known.captions) == (("picture 1", "picture 3"), (("b",), ("d",)))
    assert known.labels.tolist() == [1, 0]
    assert known.vectors.tolist() == np.eye(4)[[1, 3]].tolist()
    with pytest.raises(DataError, match="no picture has a class"):
        hand_made(np.eye(2)).labelled()


def test_classes_are_renumbered_and_those_without_a_name_refused() -> None:
    pictures = hand_made(np.eye(3), labels=[1, -1, 0])
    assert pictures.renumbered(np.array([5, 3])).labels.tolist() == [3, -1, 5]
    assert hand_made(np.eye(3)).renumbered(np.array([], np.int64)).labels.tolist() == [-1] * 3
    with pytest.raises(DataError, match="a picture has class 1, counted from 0, but the data name 1 classes"):
        pictures.renumbered(np.array([5]))
