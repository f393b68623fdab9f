"""What clients send and get, in the shapes they know: OpenAI's embeddings with the dialects of pictures, rerank, ours.

A picture is always a data URI. No path and no web address is ever taken from a client.
"""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from siglip.download import is_data_uri
from siglip.errors import clip

MAX_ITEMS = 1024
T = TypeVar("T")
Text = Annotated[str, Field(min_length=1, max_length=100_000)]


class BadRequest(Exception):
    """A request that cannot be worked on; `param` is the field that is wrong."""

    def __init__(self, message: str, param: str | None = None, *, status: int = 400, code: str = "invalid") -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str | None = None


class ImageUrl(BaseModel):
    url: str


class Part(BaseModel):
    """A part of a message: a text or a picture."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class Chat(BaseModel):
    role: str = "user"
    content: str | list[Part]


class PictureItem(BaseModel):
    model_config = ConfigDict(extra="forbid")
    image: str


class TextItem(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str


Item = str | TextItem | PictureItem


class EmbeddingsRequest(_Strict):
    """`input` as OpenAI's, with pictures as {"image": "data:..."} or all of them by `modality`; or one `messages`."""

    input: Item | list[Item] | None = None
    messages: list[Chat] | None = None
    modality: Literal["text", "image"] = "text"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    strict: bool = False
    user: str | None = None


class ClassifyRequest(_Strict):
    images: list[str] = Field(min_length=1, max_length=MAX_ITEMS)
    labels: list[Text] = Field(min_length=1, max_length=MAX_ITEMS)
    templates: list[Text] | None = Field(default=None, min_length=1, max_length=100)
    top: int = Field(default=5, ge=1)


class ScoreRequest(_Strict):
    images: list[str] = Field(min_length=1, max_length=MAX_ITEMS)
    texts: list[Text] = Field(min_length=1, max_length=MAX_ITEMS)


class RerankRequest(_Strict):
    """Cohere's and Jina's shape: a text against pictures, or a picture against texts."""

    query: Item
    documents: list[Item] = Field(min_length=1, max_length=MAX_ITEMS)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


def items_of(request: EmbeddingsRequest) -> list[tuple[Literal["text", "image"], str]]:
    """What is to be embedded, in order, each a text or a picture."""
    if (request.input is None) == (request.messages is None):
        raise BadRequest("give `input` or `messages`, one of them", "input")
    if request.messages is not None:
        found = [part for chat in request.messages for part in _parts(chat)]
        if len(found) != 1:
            raise BadRequest(
                f"`messages` holds {len(found)} texts and pictures, expected one: this model has no vector for several "
                "together; send them as a list in `input`", "messages",
            )  # fmt: skip
        return found
    given = request.input if isinstance(request.input, list) else [request.input]
    if not 1 <= len(given) <= MAX_ITEMS:
        raise BadRequest(f"`input` has {len(given)} items, expected 1 to {MAX_ITEMS}", "input")
    return [one_of(item, request.modality) for item in given if item is not None]


def one_of(item: Item, modality: Literal["text", "image"] = "text") -> tuple[Literal["text", "image"], str]:
    """Which kind an item is, and its text or URI."""
    if isinstance(item, PictureItem):
        return "image", item.image
    return ("text", item.text) if isinstance(item, TextItem) else (modality, item)


def _parts(chat: Chat) -> list[tuple[Literal["text", "image"], str]]:
    if isinstance(chat.content, str):
        return [("text", chat.content)]
    found: list[tuple[Literal["text", "image"], str]] = []
    for part in chat.content:
        if part.image_url is not None:
            found.append(("image", part.image_url.url))
        elif part.text is not None:
            found.append(("text", part.text))
    return found


def problem_of(kind: Literal["text", "image"], value: str) -> str | None:
    """Why an item cannot be embedded, as far as can be told without decoding it."""
    if kind == "image":
        if is_data_uri(value):
            return None
        return f"a picture must be a data URI, got {clip(value)}; this service fetches no addresses and opens no paths"
    if not value:
        return "the text is empty"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "the text holds a lone surrogate, which is no character"
    return None


def vector_as(vector: np.ndarray, encoding_format: Literal["float", "base64"]) -> list[float] | str:
    """A list of numbers, or base64 of little-endian float32."""
    if encoding_format == "float":
        return vector.tolist()
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def usage(tokens: int) -> dict[str, Any]:
    """Tokens read; pictures count as the patches that the tower sees."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def best_first(scores: Sequence[float], count: int) -> list[int]:
    """Positions of the `count` highest scores, equal ones in their order."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])[:count]
