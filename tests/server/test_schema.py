"""Requests that schemathesis makes from /openapi.json: none is an error of ours, and every answer is as described."""

import base64
import json
import socket
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

from siglip import Embedder, Library
from siglip.captioner import Captioner
from siglip.server.app import Service
from siglip.server.engine import Limits
from siglip.server.run import _Impatient
from tests.captioners import captioner as toy
from tests.server.conftest import SAMPLES, Running, data_uri, running

# of labels of which the model reads nothing; the command leaves them out too
pytestmark = pytest.mark.filterwarnings("ignore::siglip.errors.SiglipWarning")
EXAMPLES = 6
CAT, PIG = (data_uri(SAMPLES / name) for name in ("cat.jpg", "pig.png"))
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
FILES = strategies.sampled_from([(SAMPLES / "cat.jpg").read_bytes(), b"", b"no picture"])
GOOD = {
    "/v1/embeddings": {"input": ["a cat", {"image": CAT}, {"image": "data:,"}]},
    "/v1/classify": {"images": [CAT, PIG], "labels": ["a cat", "a pig"]},
    "/v1/score": {"images": CAT, "texts": ["a cat"]},
    "/v1/rerank": {"query": "a pig", "documents": [{"image": CAT}, {"image": PIG}], "return_documents": True},
    "/v1/caption": {"images": [CAT, "data:,"], "max_tokens": 2},
    "/v1/ask": {"images": [CAT, "data:,"], "question": "what is it?", "answers": ["a cat", "a pig"]},
    "/v1/explain": {"image": CAT, "texts": ["a cat"]},
    "/v1/search": {"query": "a cat - 0.5:a pig", "like": [PIG], "top": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def described(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with everything a service may have."""
    pictures = tmp_path_factory.mktemp("few")
    for name in ("one.png", "two.png"):
        (pictures / name).write_bytes((SAMPLES / "pig.png").read_bytes())
    with Library.open(tmp_path_factory.mktemp("library"), model=embedder) as library:
        library.index([pictures])
        captioner = Captioner(*toy(), batch_size=2)
        service = Service(embedder, "nano", library=library, captioner=(captioner, "toy"), limits=Limits(decoders=1))
        yield from running(service, http=_Impatient)


@pytest.fixture(scope="module")
def schema(described: Running) -> schemathesis.BaseSchema:
    schemathesis.openapi.format("binary", FILES)
    named = FILES.map(lambda data: f"data:image/jpeg;base64,{base64.b64encode(data).decode()}")
    schemathesis.openapi.format("picture", named | strategies.sampled_from(["id:00", "/etc/passwd", "http://a/b"]))
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{described.port}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_made_from_the_description_is_an_error_of_ours_or_has_another_answer_than_described(
    schema: schemathesis.BaseSchema, mode: GenerationMode
) -> None:
    for operation in (found.ok() for found in schema.get_all_operations()):
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
            continue  # nothing that could be wrong

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                case.body.pop("model", None)  # any other name than the service's own is a 404
            case.call_and_validate(checks=CHECKS, timeout=250)

        check()


def test_good_requests_are_answered_as_described(described: Running, schema: schemathesis.BaseSchema) -> None:
    digest = described.ask("/v1/pictures")[1]["data"][0]["id"]
    bodies = GOOD | {"/v1/pictures/zip": {"ids": [digest]}}
    for operation in (found.ok() for found in schema.get_all_operations()):
        case = operation.Case(media_type="application/json")
        if operation.method.upper() == "POST":
            case.body = bodies.pop(operation.path)
        elif operation.path == "/v1/search":
            case.query = {"similar_to": digest}
        known = {"digest": digest, "name": "nano"}
        case.path_parameters = {part: known[part] for part in known if f"{{{part}}}" in operation.path}
        answer = case.call_and_validate(checks=CHECKS, timeout=250)
        assert answer.status_code == 200, operation.label
    assert not bodies


def test_every_other_method_of_a_described_path_is_a_405_that_names_those_it_has(described: Running) -> None:
    digest = described.ask("/v1/pictures")[1]["data"][0]["id"]
    for path, ways in described.ask("/openapi.json")[1]["paths"].items():
        allowed = {way.upper() for way in ways} | ({"HEAD"} if "get" in ways else set())
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - allowed:
            body = {} if method in ("POST", "PUT", "PATCH") else None
            status, _, told = described.ask(path.format(digest=digest, name="nano"), body, method=method)
            names = set(told.get("allow", "").split(", "))
            assert (status, names) == (405, allowed), f"{method} {path}"


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET /livez?" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_told_in_the_shape_of_all_errors(described: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", described.port), timeout=250) as connection:
        connection.sendall(sent)
        head, _, body = b"".join(iter(lambda: connection.recv(2**16), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body)["error"]["type"] == "invalid_request_error"
