"""Several models, loaded by name and judged in one call, give what each gives alone; misuse is told before any work."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from siglip import Embedder
from siglip.data import open_source
from siglip.errors import CheckpointError, ConfigError
from siglip.evaluation import Task, embed_source, evaluate_models, evaluate_retrieval
from siglip.evaluation.report import write_report
from tests.captioners import captioner
from tests.conftest import ROOT
from tests.evaluation.conftest import tiny_embedder

SAMPLES = ROOT / "samples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    embedder = tiny_embedder()
    embedder.model.save_pretrained(folder)
    embedder.processor.save_pretrained(folder)
    return str(folder)


# the towers made here read eight tokens
@pytest.mark.filterwarnings("ignore:1 of 16 texts are longer")
def test_each_of_several_models_has_the_numbers_it_has_alone(model: str) -> None:
    evaluation = evaluate_models([model, "nano"], Task(name="retrieval", data=SAMPLES), dtype="float32")
    source = open_source(SAMPLES)
    assert (evaluation.data.samples, evaluation.data.fingerprint) == (len(source), source.fingerprint())
    for name, judged in zip([model, "nano"], evaluation.judged, strict=True):
        embedder = Embedder.from_pretrained(name, dtype="float32")
        alone = evaluate_retrieval(embedder, embed_source(embedder, source))
        assert (judged.model, judged.fingerprint) == (name, embedder.fingerprint)
        assert judged.result.numbers == alone.numbers
    assert evaluation.judged[0].result.numbers != evaluation.judged[1].result.numbers


def test_texts_of_models_with_like_names_are_in_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["my model", "my-model"]
    for name in names:
        for part in captioner():
            part.save_pretrained(name)
    shutil.copy(SAMPLES / "pig.png", "pig.png")
    Path("pig.txt").write_text("a pig")
    task = Task(name="captioning", data=".", max_new_tokens=3)
    files = write_report(evaluate_models(names, task), "report")
    texts = ["captioning_my-model_results.json", "captioning_my-model-2_results.json"]
    assert files == ["report.html", "results.json", *texts]
    assert sorted(path.name for path in Path("report").iterdir()) == sorted(files)
    assert json.loads(Path("report", texts[0]).read_text()) == json.loads(Path("report", texts[1]).read_text())


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "zeroshot"}, "no task 'zeroshot'.*did you mean 'zero-shot'"),
        ({"name": "retrieval", "shots": 3}, "shots is for task k-shot, not for retrieval"),
        ({"name": "vqa", "classes": ["a"]}, "classes is for task zero-shot or linear-probe or k-shot, not for vqa"),
        ({"name": "k-shot"}, "k-shot learns from labelled pictures; give them as train"),
    ],
)
def test_a_task_takes_what_it_can_use(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Task(data="nowhere", **fields)


def test_names_are_checked_before_data_are_read() -> None:
    with pytest.raises(CheckpointError, match=r"no model 'nanno'.*did you mean 'nano'"):
        evaluate_models(["nano", "nanno"], Task(name="retrieval", data="nowhere"))


def test_a_model_of_another_kind_is_refused_by_its_task(model: str) -> None:
    with pytest.raises(
        CheckpointError, match="is not a trained classifier; evaluate it with task zero-shot or linear-probe"
    ):
        evaluate_models([model], Task(name="classification", data=SAMPLES))
