"""Clients that know OpenAI's and Jina's shapes are answered with the numbers of the embedder itself."""

import asyncio
import base64

import numpy as np
import openai
import pytest

from siglip import Embedder
from tests.server.conftest import SAMPLES, Running, data_uri

CAT, PIG = SAMPLES / "cat.jpg", SAMPLES / "pig.png"


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)


def test_the_openai_client_gets_the_vectors_of_the_embedder_in_both_encodings(
    client: openai.OpenAI, embedder: Embedder
) -> None:
    texts = ["a cat", "two dogs", "caf\u00e9", "a cat"]
    expected = embedder.embed_texts(texts).vectors
    by_default = client.embeddings.create(model="nano", input=texts)
    as_floats = client.embeddings.create(model="nano", input=texts, encoding_format="float")
    for answer in (by_default, as_floats):
        assert [item.index for item in answer.data] == [0, 1, 2, 3] and answer.model == "nano"
        np.testing.assert_allclose([item.embedding for item in answer.data], expected, atol=1e-5)
        assert answer.usage.prompt_tokens == sum(embedder.processor.tokenizer.count(text) for text in texts)
    one = client.embeddings.create(model="nano", input="a cat", dimensions=expected.shape[1])
    np.testing.assert_allclose(one.data[0].embedding, expected[0], atol=1e-5)
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").id == "nano"
    with pytest.raises(openai.NotFoundError, match="no model 'some/other' here, only 'nano'"):
        client.models.retrieve("some/other")


def test_base64_is_little_endian_float32(server: Running, embedder: Embedder) -> None:
    _, body, _ = server.ask("/v1/embeddings", {"input": "a cat", "encoding_format": "base64"})
    found = np.frombuffer(base64.b64decode(body["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(found, embedder.embed_texts(["a cat"]).vectors[0], atol=1e-5)


def test_many_asking_at_once_get_the_vectors_that_each_gets_alone(server: Running, embedder: Embedder) -> None:
    async def ask_all() -> list[list[float]]:
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0
        ) as client:
            answers = [client.embeddings.create(model="nano", input=f"text number {number}") for number in range(50)]
            return [answer.data[0].embedding for answer in await asyncio.gather(*answers)]

    expected = embedder.embed_texts([f"text number {number}" for number in range(50)]).vectors
    np.testing.assert_allclose(asyncio.run(ask_all()), expected, atol=1e-5)
    numbers = server.ask("/metrics")[1]
    batches = float(numbers.split('siglip_batch_size_count{tower="text"} ')[1].split()[0])
    items = float(numbers.split('siglip_batch_size_sum{tower="text"} ')[1].split()[0])
    assert items > batches, "requests that wait together are computed together"


def test_pictures_come_in_all_dialects_and_give_the_vectors_of_the_embedder(
    server: Running, embedder: Embedder
) -> None:
    expected = embedder.embed_images([CAT]).vectors[0]
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_uri(CAT)}}]}
    for body in (
        {"input": [{"image": data_uri(CAT)}]},
        {"input": {"image": data_uri(CAT)}},
        {"input": [data_uri(CAT)], "modality": "image"},
        {"messages": [message]},
    ):
        status, answer, _ = server.ask("/v1/embeddings", body)
        assert status == 200
        np.testing.assert_allclose(answer["data"][0]["embedding"], expected, atol=1e-5)


def test_one_bad_item_of_many_is_an_error_in_its_place_unless_strict(server: Running, embedder: Embedder) -> None:
    items = [f"text {number}" for number in range(31)]
    body = {"input": [*items[:9], {"image": data_uri(b"no picture")}, *items[9:]]}
    status, answer, _ = server.ask("/v1/embeddings", body)
    assert status == 200 and [item["index"] for item in answer["data"]] == list(range(32))
    bad = answer["data"].pop(9)
    assert bad["object"] == "error" and bad["embedding"] == [] and "no picture" in bad["error"]["message"]
    found = [item["embedding"] for item in answer["data"]]
    np.testing.assert_allclose(found, embedder.embed_texts(items).vectors, atol=1e-5)
    status, answer, _ = server.ask("/v1/embeddings", {**body, "strict": True})
    assert status == 400 and answer["error"]["param"] == "input.9"


def test_classify_score_and_rerank_give_the_probabilities_of_the_embedder(server: Running, embedder: Embedder) -> None:
    labels, images = ["a cat", "a pig", "a rocket"], embedder.embed_images([CAT, PIG])
    expected = embedder.probabilities(images, embedder.embed_labels(labels, ["this is {}", "{}"]))
    body = {"images": [data_uri(CAT), data_uri(PIG)], "labels": labels, "templates": ["this is {}", "{}"], "top": 2}
    status, answer, _ = server.ask("/v1/classify", body)
    assert status == 200
    for row, item in zip(expected, answer["data"], strict=True):
        best = np.argsort(-row)[:2]
        assert [label["label"] for label in item["labels"]] == [labels[place] for place in best]
        np.testing.assert_allclose([label["score"] for label in item["labels"]], row[best], rtol=1e-3)
    texts = embedder.embed_texts(labels)
    expected = embedder.probabilities(images, texts)
    _, answer, _ = server.ask("/v1/score", {"images": body["images"], "texts": labels})
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-3)
    np.testing.assert_allclose(answer["cosines"], embedder.similarity(images, texts), atol=1e-5)
    documents = [{"image": uri} for uri in body["images"]]
    _, answer, _ = server.ask("/v1/rerank", {"query": "a pig", "documents": documents, "top_n": 1})
    (best,) = answer["results"]
    assert best["index"] == int(expected[:, 1].argmax())
    assert best["relevance_score"] == pytest.approx(expected[:, 1].max(), rel=1e-3)


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/embeddings", {"input": [1, 2, 3]}, 400, "input"),
        ("/v1/embeddings", {"input": []}, 400, "input"),
        ("/v1/embeddings", {}, 400, "input"),
        ("/v1/embeddings", {"input": "a", "dimensions": 7}, 400, "dimensions"),
        ("/v1/embeddings", {"input": "a", "model": "gpt"}, 404, "model"),
        ("/v1/embeddings", {"input": "a", "modle": "nano"}, 400, "modle"),
        ("/v1/embeddings", {"input": ["\ud800"]}, 400, "input.0"),
        ("/v1/embeddings", {"input": [{"image": "/etc/passwd"}]}, 400, "input.0"),
        ("/v1/embeddings", {"input": [{"image": "http://127.0.0.1/a.png"}]}, 400, "input.0"),
        ("/v1/embeddings", {"input": ["x"] * 100}, 413, None),
        ("/v1/classify", {"images": [], "labels": ["a"]}, 400, "images"),
        ("/v1/classify", {"images": [data_uri(b"")], "labels": ["a"]}, 400, "images.0"),
        ("/v1/classify", {"images": [data_uri(CAT)], "labels": ["a"], "templates": ["b"]}, 400, "templates"),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}, 400, "documents"),
        ("/v1/nothing", {}, 404, None),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_the_shape_of_openai(
    server: Running, path: str, body: object, status: int, param: str | None
) -> None:
    found, answer, headers = server.ask(path, body)
    assert found == status
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["code"]
    assert param is None or error["param"].startswith(param)
    assert len(headers["x-request-id"]) == 16 and "siglip/" not in error["message"]
