"""A form with files says the same as JSON."""

import json
from typing import Any

import pytest

from tests.server.conftest import SAMPLES, Running, data_uri

_BOUNDARY = "-----frontier"
_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"


def _form(*parts: tuple[str, str | bytes]) -> bytes:
    lines: list[bytes] = []
    for name, value in parts:
        file = '; filename="x.png"\r\nContent-Type: image/png' if isinstance(value, bytes) else ""
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        lines += [head.encode(), value if isinstance(value, bytes) else value.encode(), b"\r\n"]
    return b"".join([*lines, f"--{_BOUNDARY}--\r\n".encode()])


def _rounded(answer: Any) -> Any:
    return json.loads(json.dumps(answer), parse_float=lambda number: round(float(number), 4))


def test_files_and_fields_of_a_form_are_answered_as_the_same_json(server: Running) -> None:
    cat, pig = (SAMPLES / name for name in ("cat.jpg", "pig.png"))
    for path, parts, body in (
        (
            "/v1/embeddings",
            [("input", cat.read_bytes()), ("encoding_format", "float")],
            {"input": {"image": data_uri(cat)}},
        ),
        (
            "/v1/embeddings",
            [("input", "caf\u00e9"), ("input", pig.read_bytes())],
            {"input": ["caf\u00e9", {"image": data_uri(pig)}]},
        ),
        (
            "/v1/classify",
            [("images", cat.read_bytes()), ("images", pig.read_bytes()), ("labels", "a cat"), ("labels", "a pig"),
             ("top", "1")],
            {"images": [data_uri(cat), data_uri(pig)], "labels": ["a cat", "a pig"], "top": 1},
        ),
        ("/v1/score", [("images[]", cat.read_bytes()), ("texts[]", "a")], {"images": [data_uri(cat)], "texts": ["a"]}),
    ):  # fmt: skip
        status, answer, _ = server.ask(path, _form(*parts), Content_Type=_TYPE)
        assert status == 200 and _rounded(answer) == _rounded(server.ask(path, body)[1])


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (_TYPE, b"no form"),
        (_TYPE, _form(("input", "a"))[:-10] * 2),
        ("multipart/form-data", _form(("input", "a"))),
        (_TYPE, _form(*[("input", "a")] * 2000)),
        (_TYPE, _form(*[("input", "a")] * 5000)),
        (_TYPE, _form(("input", "a"), ("modle", "nano"))),
        (_TYPE, _form(("", b"x"))),
        ("multipart/form-data; boundary=\xff", b""),
    ],
)
def test_a_damaged_form_is_a_400(server: Running, kind: str, body: bytes) -> None:
    status, answer, _ = server.ask("/v1/embeddings", body, Content_Type=kind)
    assert status == 400 and answer["error"]["message"]


def test_a_form_holds_as_much_as_the_same_json(server: Running) -> None:
    parts = [("labels", f"label {number}") for number in range(1024)] + [("templates", f"{n} {{}}") for n in range(4)]
    form = _form(("images", "no picture"), *parts, ("top", "3"))
    status, answer, _ = server.ask("/v1/classify", form, Content_Type=_TYPE)
    assert (status, answer["error"]["param"]) == (400, "images.0")


def test_the_description_of_a_form_knows_no_null_and_as_many_pictures_as_the_json(server: Running) -> None:
    parts = server.ask("/openapi.json")[1]["paths"]["/v1/caption"]["post"]["requestBody"]["content"]
    fields = parts["multipart/form-data"]["schema"]["properties"]
    file = {"type": "string", "format": "binary"}
    assert fields["images"] == {"anyOf": [{"type": "array", "minItems": 1, "maxItems": 1024, "items": file}, file]}
    assert fields["model"]["anyOf"] == [{"type": "string"}]
