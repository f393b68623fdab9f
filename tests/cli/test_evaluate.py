"""`siglip evaluate` on folders, tables, shards and saved data sets, with a tiny model: the numbers of the library."""

import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from siglip import Embedder
from siglip.cli.main import main
from siglip.data import open_source
from siglip.evaluation import embed_source, evaluate_retrieval, evaluate_zero_shot
from tests.cli.conftest import Run
from tests.evaluation.conftest import tiny_embedder

COLOURS = {"cat": (230, 20, 20), "dog": (20, 230, 20), "pig": (20, 20, 230)}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Towers without training; colours are far apart in their vectors, which is enough for a linear layer."""
    folder = tmp_path_factory.mktemp("model")
    embedder = tiny_embedder()
    embedder.model.save_pretrained(folder)
    embedder.processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGLIP_CACHE", str(tmp_path / "cache"))


def picture(name: str, number: int) -> Image.Image:
    colour = [min(255, value + 2 * number) for value in COLOURS[name]]
    return Image.new("RGB", (16, 16), (colour[0], colour[1], colour[2]))


def class_folders(folder: str, names: Sequence[str], count: int, first: int = 0) -> None:
    for name in names:
        Path(folder, name).mkdir(parents=True)
        for number in range(first, first + count):
            picture(name, number).save(Path(folder, name, f"{number}.png"))


def captioned(folder: str) -> None:
    Path(folder).mkdir()
    for number, name in enumerate(COLOURS):
        picture(name, number).save(Path(folder, f"{name}.png"))
        Path(folder, f"{name}.txt").write_text(f"a {name}")


def evaluate(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code = main(["evaluate", *words, "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def test_retrieval_is_that_of_the_library_in_every_form(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    captioned("photos")
    record = evaluate(capsys, model, "--task", "retrieval", "--data", "photos", "--out", "report")
    embedder, source = Embedder.from_pretrained(model), open_source("photos")
    expected = evaluate_retrieval(embedder, embed_source(embedder, source))
    (found,) = record["models"]
    assert found["numbers"] == expected.numbers
    assert (found["model"], found["fingerprint"]) == (model, embedder.fingerprint)
    assert record["data"] == {"source": "photos", "samples": 3, "fingerprint": source.fingerprint()}
    assert json.loads(Path("report/results.json").read_text()) == record
    assert Path("report/report.html").read_text().startswith("<!doctype html>")
    assert main(["evaluate", model, model, "--task", "retrieval", "--data", "photos"]) == 0
    heading, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert heading == ["number", model, model]
    values = {name: [float(value) for value in values] for name, *values in rows}
    assert values == {
        name: pytest.approx([value] * 2, rel=1e-6) for name, value in {**expected.numbers, **expected.counts}.items()
    }


def test_zero_shot_takes_names_and_templates_from_where_it_is_told(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders("test", ["pig", "cat"], 3)
    Path("names.txt").write_text("# animals\ndog\nPig\ncat\n")
    Path("templates.txt").write_text("a {}\n{}!\n")
    embedder = Embedder.from_pretrained(model)
    pictures = embed_source(embedder, open_source("test"))

    words = (model, "--task", "zero-shot", "--data", "test")
    own = evaluate_zero_shot(embedder, pictures, ["cat", "pig"], ["{}"])
    assert evaluate(capsys, *words, "--templates", "{}")["models"][0]["numbers"] == own.numbers
    # the data number cat, pig as 0, 1; the file as 2, 1
    renumbered = pictures.renumbered(np.array([2, 1]))
    given = evaluate_zero_shot(embedder, renumbered, ["dog", "Pig", "cat"], ["a {}", "{}!"])
    found = evaluate(capsys, *words, "--classes", "names.txt", "--templates", "templates.txt")["models"][0]
    assert found["numbers"] == given.numbers
    assert found["settings"] == {"templates": ["a {}", "{}!"]}
    assert {item["name"] for item in found["per_class"]} == {"Pig", "cat"}
    assert len(evaluate(capsys, *words, "--templates", "imagenet")["models"][0]["settings"]["templates"]) == 81
    assert evaluate(capsys, *words)["models"][0]["settings"] == {"templates": ["This is a photo of {}."]}


@pytest.mark.parametrize("task", [("linear-probe",), ("k-shot", "--shots", "3")])
def test_probes_learn_colours_whatever_the_classes_are_numbered(
    task: tuple[str, ...], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders("train", list(COLOURS), 6)
    class_folders("test", ["dog", "pig"], 4, first=6)  # 0 and 1 here, 1 and 2 there
    record = evaluate(capsys, model, "--task", *task, "--data", "test", "--train", "train")
    assert record["models"][0]["numbers"]["top1"] == 1.0
    assert [item["name"] for item in record["models"][0]["per_class"]] == ["dog", "pig"]
    assert record["models"][0]["counts"]["train_pictures"] == {"linear-probe": 18, "k-shot": 9}[task[0]]
    assert record["train"]["source"] == "train"


def shards(number: int) -> str:
    """Numbered classes, named nowhere."""
    with tarfile.open("test.tar", "w") as tar:
        for label, name in enumerate(COLOURS):
            picture(name, number).save("picture.png")
            Path("label").write_text(str(label))
            tar.add("picture.png", f"{name}.png")
            tar.add("label", f"{name}.cls")
    return "test.tar"


def table(number: int) -> str:
    rows = ["file_name,label"]
    for label, name in enumerate(COLOURS):
        picture(name, number).save(f"{name}.png")
        rows.append(f"{name}.png,{label}")
    Path("test.csv").write_text("\n".join(rows))
    return "test.csv"


def saved_dataset(number: int) -> str:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["pig", "dog", "cat"])})
    rows = {"image": [picture(name, number) for name in COLOURS], "label": [2, 1, 0]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk("test")
    return "test"


@pytest.mark.parametrize("make", [shards, table, saved_dataset])
def test_every_kind_of_data_gives_the_same_classes(make: Any, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders("train", list(COLOURS), 4)
    record = evaluate(capsys, model, "--task", "k-shot", "--shots", "2", "--data", make(4), "--train", "train")
    assert record["models"][0]["numbers"]["top1"] == 1.0
    assert [item["name"] for item in record["models"][0]["per_class"]] == ["cat", "dog", "pig"]


def test_names_taken_in_order_are_told(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders("test", ["cat", "dog"], 1)
    Path("names.txt").write_text("Katze\ndog\n")
    words = ["evaluate", model, "--task", "zero-shot", "--data", "test", "--classes", "names.txt"]
    assert main(words) == 0
    assert "classes are named in the order of the data: cat = Katze" in capsys.readouterr().err


def test_a_terminal_gets_per_cent_in_aligned_columns(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioned("photos")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["evaluate", model, "--task", "retrieval", "--data", "photos", "--all-captions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["image_to_text/recall@10", "100.0", "%"]
    assert len({len(line) for line in lines}) == 1


def test_broken_pictures_are_listed_and_the_exit_code_says_so(siglip: Run, model: str) -> None:
    captioned("photos")
    Path("photos/dog.png").write_bytes(b"no picture")
    result = siglip("evaluate", model, "--task", "retrieval", "--data", "photos", "--json", "--out", "report")
    assert result.returncode == 3
    assert "1 of 3 failed" in result.stderr
    assert [item["name"] for item in json.loads(result.stdout)["failures"]] == ["dog.png"]
    assert "dog.png" in Path("report/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("nan --task retrieval --data test", 1, "no model 'nan'.*did you mean 'nano'"),
        ("MODEL --task retrieval --data nowhere", 1, "nowhere is missing; expected shards"),
        ("MODEL --task retrieval --data test --shots 3", 2, "--shots is for --task k-shot, not for retrieval"),
        ("MODEL --task k-shot --data test", 2, "name them with --train"),
        ("MODEL --task zero-shot --data test --classes cifar", 2, "neither a file nor one of cifar10, cifar100, imag"),
        ("MODEL --task zero-shot --data test --templates photo", 2, "template 'photo' has no {} for the class"),
        (f"MODEL --task zero-shot --data test --templates {'x' * 300}", 2, "template 'xxx.* has no {} for the class"),
        (
            f"MODEL --task zero-shot --data test --classes {'x' * 300}",
            2,
            "--classes xxx.* is neither a file nor one of",
        ),
        ("x" * 300 + " --task zero-shot --data test", 1, "no model 'xxx.*: expected"),
        ("MODEL --task zero-shot --data photos", 1, "photos names no classes; give"),
        ("MODEL --task zero-shot --data photos --classes names.txt", 1, "no picture has a class; this task needs"),
        ("MODEL --task zero-shot --data test --classes names.txt", 1, "the first is 'cat'; give one name for each"),
        ("MODEL --task k-shot --data test --train test", 1, "'cat' has 2 training pictures, 10 shots need as many"),
        ("MODEL --task retrieval --data test --out names.txt", 1, "names.txt: File exists"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: str, code: int, message: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders("test", ["cat", "dog"], 2)
    captioned("photos")
    Path("names.txt").write_text("fox\n")
    assert main(["evaluate", *words.replace("MODEL", model).split()]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert re.search(message, printed.err), printed.err
