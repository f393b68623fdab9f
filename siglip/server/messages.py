"""What clients send and get, in the shapes they know: OpenAI's embeddings with the dialects of pictures, rerank, ours.

Where a picture is taken it is a string, or the same string as {"image": ...}; siglip.server.sources says which ones.
One may stand for a list of one.
"""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import to_json

MAX_ITEMS = 1024
_MAX_LETTERS = 100_000
# of a conversation, which must hold one item in the end
_MOST_PARTS = 16
T = TypeVar("T")
Text = Annotated[str, Field(min_length=1, max_length=_MAX_LETTERS)]
_UpTo16 = Annotated[list[Text], Field(min_length=1, max_length=16)]
_UpTo100 = Annotated[list[Text], Field(min_length=1, max_length=100)]
_UpToAll = Annotated[list[Text], Field(min_length=1, max_length=MAX_ITEMS)]
# a format of our own: who reads the description, or makes requests from it, knows that not every string is a picture
Name = Annotated[str, Field(json_schema_extra={"format": "picture"})]
Id = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


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
    content: str | Annotated[list[Part], Field(max_length=_MOST_PARTS)]


class PictureItem(BaseModel):
    model_config = ConfigDict(extra="forbid")
    image: Name


class TextItem(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str


Item = str | TextItem | PictureItem


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_Pictures = Annotated[list[Name | PictureItem], Field(min_length=1, max_length=MAX_ITEMS)]
_Items = Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]
_Ids = Annotated[list[Id], Field(min_length=1, max_length=1000)]
# the second type is what /openapi.json tells
Pictures = Annotated[_Pictures, BeforeValidator(_as_list, json_schema_input_type=Name | PictureItem | _Pictures)]
Items = Annotated[_Items, BeforeValidator(_as_list, json_schema_input_type=Item | _Items)]
Ids = Annotated[_Ids, BeforeValidator(_as_list, json_schema_input_type=Id | _Ids)]
AFewTexts = Annotated[_UpTo16, BeforeValidator(_as_list, json_schema_input_type=Text | _UpTo16)]
SomeTexts = Annotated[_UpTo100, BeforeValidator(_as_list, json_schema_input_type=Text | _UpTo100)]
Texts = Annotated[_UpToAll, BeforeValidator(_as_list, json_schema_input_type=Text | _UpToAll)]


class EmbeddingsRequest(_Strict):
    """`input` as OpenAI's, with pictures as {"image": "data:..."} or all of them by `modality`; or one `messages`."""

    input: Item | Annotated[list[Item], Field(max_length=MAX_ITEMS)] | None = None
    messages: Annotated[list[Chat], Field(max_length=_MOST_PARTS)] | None = None
    modality: Literal["text", "image"] = "text"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    strict: bool = False
    user: str | None = None


class ClassifyRequest(_Strict):
    images: Pictures
    labels: Texts
    templates: SomeTexts | None = None
    top: int = Field(default=5, ge=1)


class ScoreRequest(_Strict):
    images: Pictures
    texts: Texts


class RerankRequest(_Strict):
    """Cohere's and Jina's shape: a text against pictures, or a picture against texts."""

    query: Item
    documents: Items
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


class CaptionRequest(_Strict):
    """`prompt` as the model was trained with, such as "caption en"; one text is written for each picture."""

    images: Pictures
    prompt: Annotated[str, Field(min_length=1, max_length=10_000)] = "caption en"
    max_tokens: int = Field(default=32, ge=1, le=256)
    beams: int = Field(default=1, ge=1, le=8)


class AskRequest(_Strict):
    """One question about each picture, answered freely or by the likeliest of `answers`."""

    images: Pictures
    question: Annotated[str, Field(min_length=1, max_length=10_000)]
    answers: SomeTexts | None = None
    max_tokens: int = Field(default=32, ge=1, le=256)
    beams: int = Field(default=1, ge=1, le=8)


class ExplainRequest(_Strict):
    """Where in the picture the model sees each text: numbers, or with `format` "png" one map over the picture."""

    image: Name | PictureItem
    texts: AFewTexts
    format: Literal["json", "png"] = "json"


class WeightedPicture(PictureItem):
    """A picture that counts more or less than others in a question."""

    weight: float = Field(default=1.0, gt=0.0, le=100.0)


class Question(BaseModel):
    """`query` in the library's language, or `similar_to` an id; `where` is a filter.

    `sort` "date" shows the pictures of the page newest first.
    """

    model_config = ConfigDict(extra="forbid")
    query: str | None = Field(default=None, max_length=10_000)
    similar_to: Id | None = None
    where: str | None = Field(default=None, max_length=10_000)
    sort: Literal["score", "date"] = "score"
    top: int = Field(default=20, ge=1, le=1000)
    page: int = Field(default=1, ge=1, le=1000)
    min_probability: float = Field(default=0.0, ge=0.0, le=1.0)


_Weighted = Annotated[list[Name | WeightedPicture], Field(max_length=MAX_ITEMS)]
_Alike = Annotated[_Weighted, BeforeValidator(_as_list, json_schema_input_type=Name | WeightedPicture | _Weighted)]


class SearchRequest(Question):
    """A question with pictures to be `like` or `not_like`, beside the words or without any."""

    like: _Alike = []
    not_like: _Alike = []


class ListRequest(BaseModel):
    """Which pictures of a library, in which order."""

    model_config = ConfigDict(extra="forbid")
    where: str | None = Field(default=None, max_length=10_000)
    order: Literal["newest", "oldest", "name", "largest"] = "newest"
    top: int = Field(default=100, ge=1, le=1000)
    page: int = Field(default=1, ge=1, le=100_000)


class ZipRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ids: Ids


def check_model(asked: str | None, name: str) -> None:
    """Raises BadRequest for the name of a model other than the one that a route runs."""
    if asked not in (None, name):
        raise BadRequest(f"this route runs the model {name!r}", "model", status=404, code="model_not_found")


def items_of(request: EmbeddingsRequest) -> list[tuple[Literal["text", "image"], str]]:
    """What is to be embedded, in order, each a text or a picture."""
    if (request.input is None) == (request.messages is None):
        raise BadRequest("give either `input` or `messages`", "input")
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


def names_of(pictures: Sequence[str | PictureItem]) -> list[str]:
    """What each picture is named by."""
    return [one_of(item, "image")[1] for item in pictures]


def weight_of(picture: str | WeightedPicture) -> float:
    """How much a picture of a question counts."""
    return picture.weight if isinstance(picture, WeightedPicture) else 1.0


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


def problem_of_text(text: str) -> str | None:
    """Why a text cannot be embedded."""
    if not text:
        return "the text is empty"
    if len(text) > _MAX_LETTERS:
        return f"the text has {len(text)} characters, the limit is {_MAX_LETTERS}; the model reads its beginning only"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the text holds a lone surrogate, which is no character"
    return None


def vector_as(vector: np.ndarray, encoding_format: Literal["float", "base64"]) -> list[float] | str:
    """A list of numbers, or base64 of little-endian float32."""
    if encoding_format == "float":
        return vector.tolist()
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def as_json(answer: dict[str, Any]) -> bytes:
    """An answer as it travels."""
    return to_json(answer)


def usage(tokens: int) -> dict[str, Any]:
    """Tokens read; pictures count as the patches that the tower sees."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def best_first(scores: Sequence[float], count: int) -> list[int]:
    """Positions of the `count` highest scores, equal ones in their order."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])[:count]
