"""`siglip evaluate --task captioning` and `vqa`: numbers, the files of the challenges, and the page."""

import json
import shutil
from pathlib import Path

import pytest

from siglip.cli.main import main
from tests.captioners import captioner
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("captioner")
    for part in captioner():
        part.save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGLIP_CACHE", str(tmp_path / "cache"))
    for name in ("pig.png", "penguin.png"):
        shutil.copy(ROOT / "samples" / name, name)


def test_coco_captions_give_numbers_a_page_and_the_file_of_the_challenge(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [{"id": 8, "file_name": "pig.png"}, {"id": 9, "file_name": "penguin.png"}]
    captions = [{"image_id": 8, "caption": "a pig"}, {"image_id": 9, "caption": "a bird"}]
    captions += [{"image_id": 9, "caption": "a penguin"}]
    Path("captions_val.json").write_text(json.dumps({"images": images, "annotations": captions}))
    words = ["evaluate", model, "--task", "captioning", "--data", "captions_val.json", "--max-tokens", "4"]
    assert main([*words, "--clip-score", "nano", "--out", "report", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    numbers = record["models"][0]["numbers"]
    assert list(numbers) == ["cider", "bleu-1", "bleu-2", "bleu-3", "bleu-4", "rouge-l", "exact", "clip_score"]
    assert record["models"][0]["counts"] == {"pictures": 2, "references": 3, "broken": 0}
    assert record["models"][0]["settings"]["prompts"] == ["caption en"]
    (file,) = Path("report").glob("captioning_*_results.json")
    written = json.loads(file.read_text())
    assert main(["caption", "pig.png", "penguin.png", "--model", model, "--max-tokens", "4", "--jsonl"]) == 0
    expected = [json.loads(line)["caption"] for line in capsys.readouterr().out.splitlines()]
    assert written == [
        {"image_id": 8, "caption": expected[0]}, {"image_id": 9, "caption": expected[1]}
    ]  # fmt: skip
    page = Path("report/report.html").read_text()
    assert "CIDEr-D" in page and page.count("<figure>") == 2 and "The best" in page and "a pig" in page


def test_questions_give_an_accuracy_and_what_is_broken_is_listed(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"image": "pig.png", "question": "what is it?", "answers": ["pig", "pig"]},
        {"image": "none.png", "question": "what is it?", "answers": ["pig", "pig"]},
    ]
    Path("questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    words = ["evaluate", model, "--task", "vqa", "--data", "questions.jsonl", "--max-tokens", "3", "--beams", "2"]
    assert main([*words, "--out", "report"]) == 3
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines()[1:]] == [
        ["vqa_accuracy", "0.0", "%"], ["exact", "0.0", "%"], ["questions", "1"], ["broken", "1"]
    ]  # fmt: skip
    assert "1 of 2 failed" in printed.err and "none.png" in printed.err
    (file,) = Path("report").glob("vqa_*_results.json")
    assert [sorted(entry) for entry in json.loads(file.read_text())] == [["answer", "question_id"]]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("nano --task captioning --data .", 1, "captions and answers need a PaliGemma"),
        ("MODEL --task retrieval --data .", 1, "cannot compare pictures"),
        ("MODEL --task vqa --data . --clip-score nano", 2, "--clip-score is for --task captioning, not for vqa"),
        ("MODEL --task captioning --data . --clip-score nan", 1, "no model 'nan'"),
        ("MODEL --task captioning --data . --max-tokens 500", 1, "this decoder reads 128"),
    ],
)
def test_wrong_use_is_one_line(
    words: str, code: int, said: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pig", "penguin"):
        Path(f"{name}.txt").write_text(f"a {name}")
    assert main(["evaluate", *words.replace("MODEL", model).split()]) == code
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1, err
