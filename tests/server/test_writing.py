"""What is written over HTTP is what the captioner writes; without one the routes say so."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from siglip import Embedder
from siglip.captioner import Captioner, Scores, Text
from siglip.cli.main import main
from siglip.server.app import Service
from siglip.server.engine import Limits
from tests.captioners import captioner as toy
from tests.conftest import ROOT
from tests.server.conftest import SAMPLES, Running, data_uri, running

NAMES = ("cat.jpg", "pig.png", "teapot.png")
FOLDER = "a folder called mine"
IMAGES = [data_uri(SAMPLES / name) for name in NAMES]


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner(*toy(), batch_size=2)


@pytest.fixture(scope="module")
def writer(embedder: Embedder, captioner: Captioner) -> Iterator[Running]:
    yield from running(Service(embedder, "nano", captioner=(captioner, "toy"), limits=Limits(decoders=1)))


def test_captions_are_those_of_the_captioner_and_a_bad_picture_gets_an_error(
    writer: Running, captioner: Captioner
) -> None:
    expected = list(captioner.write([SAMPLES / name for name in NAMES], "caption en", max_new_tokens=5, num_beams=2))
    body = {"images": [IMAGES[0], data_uri(b"x"), *IMAGES[1:]], "max_tokens": 5, "beams": 2}
    status, answer, _ = writer.ask("/v1/caption", body)
    assert status == 200 and answer["model"] == "toy" and [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
    bad = answer["data"].pop(1)
    assert bad["object"] == "error" and bad["error"]["param"] == "images.1"
    for item, text in zip(answer["data"], expected, strict=True):
        assert isinstance(text, Text) and (item["object"], item["text"]) == ("text", text.text)
        assert item["probability"] == pytest.approx(text.probability, rel=1e-3)


def test_a_question_is_answered_freely_or_by_the_likeliest_of_given_answers(
    writer: Running, captioner: Captioner
) -> None:
    answers = ["yes", "no", "two cats"]
    expected = list(captioner.score([SAMPLES / "pig.png"], "answer en is it a pig?", answers))
    assert isinstance(expected[0], Scores)
    chances = np.exp(expected[0].log_probabilities) / np.exp(expected[0].log_probabilities).sum()
    body = {"images": IMAGES[1], "question": "is it a pig?", "answers": answers}
    found = writer.ask("/v1/ask", body)[1]["data"][0]["answers"]
    assert [item["answer"] for item in found] == [answers[place] for place in np.argsort(-chances)]
    np.testing.assert_allclose([item["probability"] for item in found], np.sort(chances)[::-1], rtol=1e-3)
    (free,) = captioner.write([SAMPLES / "pig.png"], "answer en is it a pig?", max_new_tokens=4)
    (item,) = writer.ask("/v1/ask", {"images": IMAGES[1], "question": "is it a pig?", "max_tokens": 4})[1]["data"]
    assert isinstance(free, Text) and item["answers"][0]["answer"] == free.text


def test_both_models_are_listed_and_each_route_knows_its_own(writer: Running) -> None:
    assert [model["id"] for model in writer.ask("/v1/models")[1]["data"]] == ["nano", "toy"]
    assert writer.ask("/v1/caption", {"images": IMAGES[0], "model": "nano"})[0] == 404
    assert writer.ask("/v1/embeddings", {"input": "a", "model": "toy"})[0] == 404


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/caption", {"images": []}, "images"),
        ("/v1/caption", {"images": ["/etc/passwd"]}, "images.0"),
        ("/v1/caption", {"images": IMAGES, "prompt": "word " * 2000}, "prompt"),
        ("/v1/caption", {"images": IMAGES, "max_tokens": 0}, "max_tokens"),
        ("/v1/ask", {"images": IMAGES}, "question"),
        ("/v1/ask", {"images": IMAGES, "question": "a?", "answers": ["a", "a"]}, "answers"),
        ("/v1/ask", {"images": IMAGES, "question": "a?", "answers": ["\ud800"]}, "answers.0"),
    ],
)
def test_what_cannot_be_written_is_told_by_its_field(writer: Running, path: str, body: object, param: str) -> None:
    status, answer, _ = writer.ask(path, body)
    assert status == 400 and answer["error"]["param"] == param


def test_what_costs_more_than_the_service_holds_is_refused(embedder: Embedder, captioner: Captioner) -> None:
    service = Service(embedder, "nano", captioner=(captioner, "toy"), limits=Limits(decoders=1, max_waiting=16))
    for writer in running(service):
        body = {"images": IMAGES[:2], "max_tokens": 64}
        assert writer.ask("/v1/caption", {**body, "beams": 8})[0] == 413
        assert writer.ask("/v1/caption", {**body, "beams": 1})[0] == 200
        assert writer.service.engine.captions.room.count == 0


def test_without_a_captioner_the_routes_say_what_is_missing(server: Running) -> None:
    for path, body in (("/v1/caption", {"images": IMAGES}), ("/v1/ask", {"images": IMAGES, "question": "a?"})):
        status, answer, _ = server.ask(path, body)
        assert (status, answer["error"]["code"]) == (404, "no_captioner") and "--captioner" in answer["error"][
            "message"
        ]


@pytest.mark.parametrize(
    ("words", "models"),
    [
        ([], ["nano", "nano-caption"]),
        (["--captioner", "none"], ["nano"]),
        (["--model", FOLDER], ["mine"]),
        (["--model", FOLDER, "--captioner", "nano-caption"], ["mine", "nano-caption"]),
    ],
)
def test_the_built_in_captioner_writes_beside_the_built_in_model_and_folders_are_named_without_their_place(
    words: list[str], models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").symlink_to(ROOT / "siglip/assets/nano")
    served: list[Service] = []
    monkeypatch.setattr("siglip.server.run.serve", lambda service, **_: served.append(service))
    assert main(["serve", *(word.replace(FOLDER, str(tmp_path / "mine")) for word in words)]) == 0
    assert [model["id"] for model in asyncio.run(served[0].models())["data"]] == models
