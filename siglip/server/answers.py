"""What clients are told, as types: each route is checked against its own, and /openapi.json describes it by them.

A field with a default is left out of an answer where it says nothing.
"""

from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict

from siglip.search.browsing import Progress


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorFacts(_Told):
    """What went wrong, in OpenAI's shape; `param` is the field of the request that is wrong."""

    message: str
    type: str
    param: str | None
    code: str


class Error(_Told):
    error: ErrorFacts


class Alive(_Told):
    status: Literal["ok"]


class Ready(_Told):
    ready: bool


class ModelFacts(_Told):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    dimensions: int | None = None
    image_size: int | None = None
    max_tokens: int | None = None
    fingerprint: str | None = None


class Models(_Told):
    object: Literal["list"]
    data: list[ModelFacts]


class Embedding(_Told):
    """A unit vector as numbers or as base64 of little-endian float32; an item with an `error` has an empty one."""

    object: Literal["embedding", "error"]
    index: int
    embedding: list[float] | str
    error: ErrorFacts | None = None


class Usage(_Told):
    prompt_tokens: int
    total_tokens: int


class Embeddings(_Told):
    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: Usage


class Label(_Told):
    label: str
    score: float


class Labels(_Told):
    index: int
    labels: list[Label]


class Classes(_Told):
    object: Literal["list"]
    model: str
    data: list[Labels]


class Scores(_Told):
    """Rows are pictures, columns texts."""

    object: Literal["list"]
    model: str
    probabilities: list[list[float]]
    cosines: list[list[float]]


class Ranked(_Told):
    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class Ranking(_Told):
    model: str
    results: list[Ranked]


class Written(_Told):
    object: Literal["text", "error"]
    index: int
    text: str | None = None
    probability: float | None = None
    error: ErrorFacts | None = None


class Captions(_Told):
    object: Literal["list"]
    model: str
    data: list[Written]


class Answer(_Told):
    answer: str
    probability: float


class Answered(_Told):
    object: Literal["text", "error"]
    index: int
    answers: list[Answer] | None = None
    error: ErrorFacts | None = None


class Answers(_Told):
    object: Literal["list"]
    model: str
    data: list[Answered]


class Heat(_Told):
    """Shares that sum to 1, as rows and columns of the picture."""

    text: str
    heat: list[list[float]]


class Explained(_Told):
    object: Literal["list"]
    model: str
    width: int
    height: int
    data: list[Heat]


class Picture(_Told):
    """A picture of the library and the files that hold it; `taken` is local time."""

    id: str
    paths: list[str]
    width: int | None
    height: int | None
    format: str | None
    taken: str | None
    camera: str | None


class Found(Picture):
    """`confidence` is how sure the library is that there is any such picture, None where it cannot tell."""

    rank: int
    score: float
    probability: float
    confidence: float | None
    sure: bool


class Hits(_Told):
    object: Literal["list"]
    page: int
    data: list[Found]


class PicturesPage(_Told):
    object: Literal["list"]
    page: int
    total: int
    data: list[Picture]


class CopyFacts(_Told):
    id: str
    path: str
    width: int
    height: int
    bytes: int


class Group(_Told):
    exact: bool
    copies: list[CopyFacts]


class DuplicatesPage(_Told):
    object: Literal["list"]
    page: int
    total: int
    data: list[Group]


class LibraryFacts(_Told):
    model: str | None
    fingerprint: str | None
    pictures: int
    files: int
    gone: int
    broken: int
    roots: list[str]
    dim: int | None
    bytes: int
    indexing: Progress | None


def as_described(model: type[Any]) -> dict[str, Any]:
    """The options of a route that answers with `model`."""
    return {"response_model": model, "response_model_exclude_unset": True}


def a_file(*kinds: str) -> dict[str, Any]:
    """The options of a route that answers with a file of one of some kinds."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {"response_class": Response, "responses": {200: {"description": "The file.", "content": content}}}
