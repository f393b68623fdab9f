"""Captions and answers of a whole source: prompts from the data, scores of what was written, nothing lost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siglip import Captioner, Embedder
from siglip.data import open_source
from siglip.errors import DataError
from siglip.evaluation import evaluate_answers, evaluate_captions, official_results, score_captions, write_texts
from tests.captioners import captioner
from tests.conftest import ROOT

SAMPLES = [str(ROOT / "samples" / name) for name in ("pig.png", "penguin.png", "teapot.png", "clock.png")]
SHORT: Any = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def writer() -> Captioner:
    return Captioner(*captioner(), batch_size=3)


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def said(writer: Captioner, name: str, prompt: str) -> str:
    return next(iter(writer.write([name], prompt, **SHORT))).text  # type: ignore[union-attr]


def test_each_sample_is_written_behind_its_own_prefix_and_compared_with_its_suffixes(
    writer: Captioner, tmp_path: Path
) -> None:
    right = [said(writer, name, "caption en") for name in SAMPLES]
    other = said(writer, SAMPLES[0], "describe de")
    assert other != right[0]
    rows = [{"image": name, "suffix": text.upper()} for name, text in zip(SAMPLES[:3], right, strict=False)]
    rows += [{"image": SAMPLES[3], "suffix": "nothing of the kind"}, {"image": SAMPLES[3], "suffix": "still nothing"}]
    rows += [{"image": SAMPLES[0], "prefix": "describe de", "suffix": other}]
    source = open_source(table(tmp_path / "t.jsonl", rows))
    texts = write_texts(writer, source, **SHORT)
    assert [item.prompt for item in texts.written] == ["caption en"] * 4 + ["describe de"]
    assert [item.text for item in texts.written] == [*right, other]
    found = evaluate_captions(texts, source)
    expected = score_captions(
        {str(item.index): item.text for item in texts.written}, {str(i.index): i.references for i in texts.written}
    )
    assert found.numbers["exact"] == 4 / 5
    assert found.numbers["cider"] == expected.cider > 1.0
    assert found.numbers["bleu-4"] == expected.bleu[3]
    assert found.numbers["rouge-l"] == expected.rouge_l
    assert found.counts == {"pictures": 5, "references": 6, "broken": 0}
    assert found.mistakes[0].found[0].text == right[3] and found.mistakes[0].found[0].score == 0.0
    assert found.best[0].found[0].score == max(expected.each.values())
    assert not {item.index for item in found.mistakes} & {item.index for item in found.best}


def test_clip_score_is_two_and_a_half_times_the_cosine_but_never_below_zero(writer: Captioner, tmp_path: Path) -> None:
    source = open_source(table(tmp_path / "t.jsonl", [{"image": name, "caption": "a"} for name in SAMPLES]))
    texts = write_texts(writer, source, **SHORT)
    embedder = Embedder.from_pretrained("nano", dtype="float32")
    found = evaluate_captions(texts, source, embedder).numbers["clip_score"]
    pictures = embedder.embed_images(SAMPLES).vectors
    captions = embedder.embed_texts([f"A photo depicts {item.text}" for item in texts.written]).vectors
    cosines = [float(a @ b) for a, b in zip(pictures, captions, strict=True)]
    assert found == pytest.approx(np.mean([2.5 * max(cosine, 0.0) for cosine in cosines]), abs=1e-6)


def test_answers_are_scored_by_agreement_and_by_the_usual_answer(writer: Captioner, tmp_path: Path) -> None:
    questions = ["what is it?", "which colour?", "how many?"]
    texts = [said(writer, SAMPLES[0], f"answer en {question}") for question in questions]
    answers = [[texts[0]] * 10, [texts[1]] * 2 + ["other"] * 8, ["other"] * 10]
    rows = [
        {"image": SAMPLES[0], "question": question, "answers": given, "question_id": 70 + number, "answer_type": kind}
        for number, (question, given, kind) in enumerate(
            zip(questions, answers, ["other", "other", "number"], strict=True)
        )
    ]
    written = write_texts(writer, open_source(table(tmp_path / "t.jsonl", rows)), **SHORT)
    found = evaluate_answers(written).numbers
    assert found == pytest.approx(
        {
            "vqa_accuracy": (1.0 + 0.6 + 0.0) / 3,
            "exact": 1 / 3,
            "vqa_accuracy/number": 0.0,
            "vqa_accuracy/other": 0.8,
        }
    )
    assert official_results("vqa", written) == [
        {"question_id": 70 + number, "answer": text} for number, text in enumerate(texts)
    ]
    # one answer each is too few for agreement
    rows = [{"image": SAMPLES[0], "question": questions[0], "answer": texts[0]}]
    written = write_texts(writer, open_source(table(tmp_path / "one.jsonl", rows)), **SHORT)
    assert evaluate_answers(written).numbers == {"exact": 1.0}


def test_what_cannot_be_used_is_counted_and_the_others_go_on(writer: Captioner, tmp_path: Path) -> None:
    good = {"image": SAMPLES[0], "question": "what is it?", "answers": ["a", "b"]}
    rows = [
        {**good, "question": "  "},
        {"image": SAMPLES[1], "question": "what is it?"},
        {**good, "image": "nowhere.png"},
        {"question": "what is it?", "answers": ["a"]},
        {**good, "question": "what " * 100},
        good,
    ]
    texts = write_texts(writer, open_source(table(tmp_path / "t.jsonl", rows)), **SHORT)
    assert [item.index for item in texts.written] == [5]
    assert [item.reason.partition(";")[0][:20] for item in texts.broken] == [
        "its question is empt", "it has no answer", "it cannot be read: N", "its picture is None,",
        "picture and prompt a",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"none of the 1 samples could be used, the first is .*nowhere"):
        write_texts(writer, open_source(table(tmp_path / "t.jsonl", rows[2:3])), **SHORT)


def test_vqa_v2_is_read_from_its_pair_of_files(tmp_path: Path) -> None:
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val2014" / "COCO_val2014_000000000042.jpg")
    questions = [{"image_id": 42, "question": "What is it?", "question_id": 42000}]
    answers = [{"answer": text, "answer_confidence": "yes", "answer_id": 1} for text in ["cat", "dog", "cat"]]
    said_ = [{"question_id": 42000, "image_id": 42, "answers": answers, "answer_type": "other"}]
    file = tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json"
    file.write_text(json.dumps({"questions": questions, "data_subtype": "val2014"}))
    with pytest.raises(DataError, match=r"expected beside it, in v2_mscoco_val2014_annotations\.json"):
        open_source(str(file))
    (tmp_path / "v2_mscoco_val2014_annotations.json").write_text(json.dumps({"annotations": said_}))
    sample = open_source(str(file)).sample(0)
    assert sample.captions == ("cat", "dog")
    assert sample.facts["answers"] == ["cat", "dog", "cat"]
    assert sample.facts["prefix"] == "answer en What is it?"
    assert (sample.facts["question_id"], sample.facts["answer_type"]) == (42000, "other")
