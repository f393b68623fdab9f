"""Captions and answers as plain Python, with pictures of any kind, one, many or without end."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from siglip import Captioner, Embedder, pipeline
from siglip.errors import ConfigError, Failure, InputError, SiglipWarning, UnreadableImage
from tests.captioners import captioner
from tests.conftest import ROOT

FILES = [ROOT / "samples" / name for name in ("penguin.png", "teddy_bear.png", "pig.png")]
# a task and what it is asked
TASKS: list[Any] = [("image-to-text",), ("image-text-to-text", "caption en"), ("visual-question-answering", "why?")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captioner")
    for part in captioner():
        part.save_pretrained(path)
    return path


def test_a_caption_is_what_the_model_writes_by_hand(folder: Path) -> None:
    write = pipeline("image-to-text", folder, batch_size=2)
    model, processor = captioner()
    expected = []
    for file in FILES:
        inputs = processor(file, "caption en")
        tokens = model.generate(**inputs, max_new_tokens=6)[0, inputs["input_ids"].shape[1] :]
        expected.append([{"generated_text": processor.decode(tokens)}])
    assert write(FILES, max_new_tokens=6) == expected
    assert write(FILES[0], max_new_tokens=6) == expected[0]
    assert len({str(text) for text in expected}) > 1
    prompted = pipeline("image-text-to-text", folder)(FILES[0], "caption en", max_new_tokens=6)
    assert prompted == [{"input_text": "caption en", **expected[0][0]}]


def test_an_answer_has_the_probability_of_its_tokens(folder: Path) -> None:
    ask = pipeline("visual-question-answering", folder)
    (free,) = ask(FILES[0], "what is it?", max_new_tokens=3)
    model, processor = captioner()
    inputs = processor(FILES[0], "answer en what is it?")
    tokens = model.generate(**inputs, max_new_tokens=3)
    new = tokens.shape[1] - inputs["input_ids"].shape[1]
    logits = model(
        tokens,
        inputs["pixel_values"],
        token_type_ids=(torch.arange(tokens.shape[1])[None] >= tokens.shape[1] - new).long(),
    ).logits
    logs = logits[0, -new - 1 : -1].log_softmax(dim=-1).gather(1, tokens[0, -new:, None])
    assert free["answer"] == processor.decode(tokens[0, -new:])
    assert free["score"] == pytest.approx(logs.sum().exp().item(), rel=1e-3)


def test_candidate_answers_are_a_choice_among_them(folder: Path) -> None:
    ask = pipeline("visual-question-answering", folder)
    found = ask(FILES[0], "is it a bird?", candidate_answers=["yes", "no", "a bird"])
    model, processor = captioner()
    inputs: Any = processor(FILES[0], "answer en is it a bird?")
    answers = [processor.encode(text) for text in ("yes", "no", "a bird")]
    chances = model.score(inputs["input_ids"], answers, inputs["pixel_values"]).softmax(dim=1)[0]
    assert {entry["answer"]: entry["score"] for entry in found} == pytest.approx(
        dict(zip(("yes", "no", "a bird"), chances.tolist(), strict=True)), rel=1e-4
    )
    assert [entry["score"] for entry in found] == sorted((entry["score"] for entry in found), reverse=True)
    assert len(ask(FILES, "is it a bird?", candidate_answers=["yes", "no"], top_k=1)) == 3


def test_a_stream_goes_on_after_a_broken_picture_and_need_not_end(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    write = pipeline("image-to-text", folder, batch_size=2)
    endless = itertools.chain([FILES[0], tmp_path / "broken.png"], itertools.repeat(FILES[1]))
    first, second, third = itertools.islice(write(endless, max_new_tokens=2), 3)
    assert isinstance(second, Failure) and second.name.endswith("broken.png")
    assert "generated_text" in first[0] and "generated_text" in third[0]
    with pytest.raises(UnreadableImage, match="broken"):
        write([FILES[0], tmp_path / "broken.png"])


def test_pictures_in_memory_give_the_same_as_files(folder: Path) -> None:
    with Image.open(FILES[0]) as opened:
        white = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened.convert("RGBA")).convert("RGB")
    write = Captioner.from_pretrained(folder).write
    texts = [
        item.text for item in write([FILES[0], white, np.asarray(white)], "caption en") if not isinstance(item, Failure)
    ]
    assert len(texts) == 3 and len(set(texts)) == 1


def test_bad_input_is_told(folder: Path) -> None:
    ask = pipeline("visual-question-answering", folder)
    with pytest.raises(InputError, match="expected one question about the pictures"):
        ask(FILES[0], " ")
    with pytest.raises(InputError, match="none of them blank or repeated"):
        ask(FILES[0], "what?", candidate_answers=["a", "a"])
    for candidates in (["yes", " "], "yes", []):
        with pytest.raises(InputError, match="answers must be a list of texts, none of them blank"):
            ask(FILES[0], "what?", candidate_answers=candidates)
    with pytest.raises(InputError, match="num_beams cannot be used with candidate_answers"):
        ask(FILES[0], "what?", candidate_answers=["a", "b"], num_beams=2)
    with pytest.raises(InputError, match="top_k must be at least 1, got 0"):
        ask(FILES[0], "what?", top_k=0)
    with pytest.warns(SiglipWarning, match="'caption'") as said:
        pipeline("image-to-text", folder)(FILES[0], prompt="captoin en")
    assert len(said) == 1
    with pytest.raises(InputError, match="this decoder reads 128"):
        pipeline("image-to-text", folder)(FILES[0], prompt="caption " * 200)
    with pytest.raises(ConfigError, match="captions and answers need a PaliGemma"):
        pipeline("image-to-text", "nano")
    with pytest.raises(ConfigError, match="a model that writes and cannot compare pictures"):
        pipeline("image-feature-extraction", folder)
    with pytest.raises(InputError, match="this task needs a Captioner"):
        pipeline("image-to-text", Embedder.from_pretrained("nano"))
    with pytest.raises(InputError, match="'visual-question-answering'"):
        pipeline("visual-question-answer", folder)


@pytest.mark.parametrize(
    ("given", "hint"),
    [("max_new_token", "did you mean 'max_new_tokens'"), ("threshold", "it takes image")],
)
def test_a_keyword_that_writing_does_not_have_is_refused_by_name(folder: Path, given: str, hint: str) -> None:
    for task, *words in TASKS:
        write = pipeline(task, folder)
        with pytest.raises(InputError, match=f"the pipeline {task} has no keyword {given!r}; {hint}"):
            write(FILES[0], *words, **{given: 8})
        with pytest.raises(InputError, match=f"generate_kwargs of the pipeline {task} has no keyword {given!r}"):
            write(FILES[0], *words, generate_kwargs={given: 8})


def test_keywords_of_writing_mean_what_they_mean_to_transformers(folder: Path) -> None:
    for task, *words in TASKS:
        write = pipeline(task, folder)
        short, long = (write(FILES, *words, max_new_tokens=count) for count in (2, 6))
        assert short != long == write(FILES, *words, generate_kwargs={"max_new_tokens": 6})
        assert long == write(FILES, *words, max_new_tokens=6, do_sample=False, num_beams=None)
        drawn = write(FILES, *words, max_new_tokens=6, do_sample=True, seed=1)
        assert drawn == write(FILES, *words, max_new_tokens=6, temperature=1.0, seed=1) != long
        with pytest.raises(InputError, match=r"do_sample=False draws nothing and temperature=0\.5 draws"):
            write(FILES[0], *words, do_sample=False, temperature=0.5)
        with pytest.raises(InputError, match="got max_new_tokens beside generate_kwargs and in it"):
            write(FILES[0], *words, max_new_tokens=6, generate_kwargs={"max_new_tokens": 6})


def test_a_call_of_writing_may_have_its_own_batch_size(folder: Path) -> None:
    sizes: list[int] = []
    for task, *words in [*TASKS, ("visual-question-answering", "why?", ["a", "b"])]:
        write = pipeline(task, folder, batch_size=2)
        seen = write.captioner.model.vision_tower.register_forward_pre_hook(
            lambda _, given: sizes.append(len(given[0]))
        )
        options = {"candidate_answers": words.pop()} if len(words) == 2 else {"max_new_tokens": 2}
        with seen:
            for size, expected in ((1, [1, 1, 1]), (3, [3]), (None, [2, 1])):
                sizes.clear()
                assert len(write(FILES, *words, batch_size=size, **options)) == 3
                assert sizes == expected
        with pytest.raises(InputError, match="batch_size must be a whole number of at least 1, got 0"):
            write(FILES, *words, batch_size=0, **options)


def test_a_list_of_texts_has_one_for_each_picture(folder: Path) -> None:
    go_on = pipeline("image-text-to-text", folder)
    texts = ["caption en", "answer en why?", "ocr"]
    alone = [go_on(file, text, max_new_tokens=4) for file, text in zip(FILES, texts, strict=True)]
    assert go_on(FILES, texts, max_new_tokens=4, return_full_text=False) == alone
    with pytest.raises(InputError, match="image-text-to-text got return_full_text=True, but here it is always False"):
        go_on(FILES[0], "ocr", return_full_text=True)
    for pictures, count in ((FILES[:2], "2"), (FILES[0], "no list"), (iter(FILES), "no list")):
        with pytest.raises(InputError, match=f"got 3 texts and {count} of pictures"):
            go_on(pictures, texts)
    for wrong in ([7], [{"role": "user", "content": []}]):
        with pytest.raises(InputError, match="expected one text, or a list with one for each picture, got"):
            go_on(FILES[:1], wrong)
