"""The routes: JSON in, the embedder's answers out. How they are computed is the engine's, who may ask the guard's."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from siglip import __version__
from siglip.embedder import Embedder
from siglip.errors import InputError, UnreadableImage
from siglip.search import Library
from siglip.server import messages
from siglip.server.engine import Engine, Refused
from siglip.server.finding import add_search
from siglip.server.messages import BadRequest
from siglip.server.metrics import Metrics
from siglip.server.safety import Guard, error_body

T = TypeVar("T")
LOG = logging.getLogger("siglip.server")
# prompts of one request: labels times templates
_MAX_PROMPTS = 4096
_GONE_S = 0.25


class Service:
    """One model behind HTTP; `asgi` is what a server runs. `ready` is False until it is warm, and while it drains."""

    def __init__(
        self,
        embedder: Embedder,
        name: str,
        *,
        keys: Sequence[str] = (),
        names: Sequence[str] = (),
        library: Library | None = None,
        decoders: int = 2,
        max_waiting: int = 1024,
        max_wait_s: float = 30.0,
    ) -> None:
        self.embedder, self.name = embedder, name
        self.metrics = Metrics()
        self.engine = Engine(embedder, self.metrics, decoders=decoders, max_waiting=max_waiting, max_wait_s=max_wait_s)
        self.ready = False
        app = FastAPI(title="siglip", version=__version__, docs_url=None, redoc_url=None, lifespan=self._lifespan)
        self._add_routes(app)
        self._add_errors(app)
        if library is not None:
            add_search(app, library)
        self.asgi: ASGIApp = Guard(app, self.metrics, keys=keys, names=names)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncGenerator[None]:
        await self.engine.warm()
        self.ready = True
        yield
        self.ready = False
        self.engine.close()

    # ---- routes

    def _add_routes(self, app: FastAPI) -> None:
        app.get("/livez")(self.livez)
        app.get("/readyz")(self.readyz)
        app.get("/metrics")(self.numbers)
        app.get("/v1/models")(self.models)
        app.post("/v1/embeddings")(self.embeddings)
        app.post("/v1/classify")(self.classify)
        app.post("/v1/score")(self.score)
        app.post("/v1/rerank")(self.rerank)

    async def livez(self) -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "ok"}

    async def readyz(self) -> JSONResponse:
        """Whether requests should be sent here."""
        return JSONResponse({"ready": self.ready}, status_code=200 if self.ready else 503)

    async def numbers(self) -> Response:
        """For Prometheus."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(self) -> dict[str, Any]:
        """The one model that this service runs."""
        config = self.embedder.model.config
        return {
            "object": "list",
            "data": [
                {
                    "id": self.name, "object": "model", "created": 0, "owned_by": "siglip",
                    "dimensions": config.text_config.embedding_size,
                    "image_size": config.vision_config.image_size,
                    "max_tokens": config.text_config.max_position_embeddings,
                    "fingerprint": self.embedder.fingerprint,
                }
            ],
        }  # fmt: skip

    async def embeddings(self, body: messages.EmbeddingsRequest, request: Request) -> dict[str, Any]:
        """Unit vectors of texts and pictures; a bad item gets an error in its place, unless `strict`."""
        self._check_model(body.model)
        dim = self.embedder.model.config.text_config.embedding_size
        if body.dimensions not in (None, dim):
            raise BadRequest(f"dimensions={body.dimensions}, but the vectors of {self.name} have {dim}", "dimensions")
        items = messages.items_of(body)
        found = await unless_gone(request, self._vectors(items))
        bad = [outcome for outcome in found if isinstance(outcome, str)]
        if bad and (body.strict or len(bad) == len(items)):
            place = next(index for index, outcome in enumerate(found) if isinstance(outcome, str))
            raise BadRequest(f"item {place}: {bad[0]}", f"input.{place}")
        data: list[dict[str, Any]] = []
        for index, outcome in enumerate(found):
            if isinstance(outcome, str):
                error = error_body(400, outcome, code="invalid", param=f"input.{index}")
                data.append({"object": "error", "index": index, "embedding": [], **error})
            else:
                vector = messages.vector_as(outcome, body.encoding_format)
                data.append({"object": "embedding", "index": index, "embedding": vector})
        good = [item for item, outcome in zip(items, found, strict=True) if not isinstance(outcome, str)]
        return {"object": "list", "model": self.name, "data": data, "usage": messages.usage(self._tokens(good))}

    async def classify(self, body: messages.ClassifyRequest, request: Request) -> dict[str, Any]:
        """For each picture the labels that fit it best, each with its own probability."""
        self._check_model(body.model)
        templates = body.templates if body.templates is not None else self.embedder.processor.templates
        if len(body.labels) * len(templates) > _MAX_PROMPTS:
            raise BadRequest(
                f"{len(body.labels)} labels in {len(templates)} templates are more than {_MAX_PROMPTS} prompts",
                "labels",
            )
        for place, label in enumerate(body.labels):
            if problem := messages.problem_of("text", label):
                raise BadRequest(problem, f"labels.{place}")
        pictures = await unless_gone(request, self._all_pictures(body.images))
        try:
            labels = await unless_gone(request, self.engine.labels(body.labels, templates))
        except InputError as error:
            raise BadRequest(str(error), "templates") from error
        data: list[dict[str, Any]] = []
        for index, row in enumerate(self.embedder.probabilities(pictures, labels).tolist()):
            best = messages.best_first(row, body.top)
            data.append({"index": index, "labels": [{"label": body.labels[at], "score": row[at]} for at in best]})
        return {"object": "list", "model": self.name, "data": data}

    async def score(self, body: messages.ScoreRequest, request: Request) -> dict[str, Any]:
        """The probability of every pair: rows are pictures, columns texts."""
        self._check_model(body.model)
        items = [("image", uri) for uri in body.images] + [("text", text) for text in body.texts]
        vectors = await unless_gone(
            request, self._all(items, ["images"] * len(body.images) + ["texts"] * len(body.texts))
        )
        images, texts = vectors[: len(body.images)], vectors[len(body.images) :]
        return {
            "object": "list",
            "model": self.name,
            "probabilities": self.embedder.probabilities(images, texts).tolist(),
            "cosines": self.embedder.similarity(images, texts).tolist(),
        }

    async def rerank(self, body: messages.RerankRequest, request: Request) -> dict[str, Any]:
        """Documents by how likely they belong to the query, the likeliest first."""
        self._check_model(body.model)
        query, documents = messages.one_of(body.query), [messages.one_of(item) for item in body.documents]
        if any(kind == query[0] for kind, _ in documents):
            raise BadRequest(
                "query and documents must differ in kind, a text against pictures or the other way: the model "
                "gives no probability for two of one kind", "documents",
            )  # fmt: skip
        vectors = await unless_gone(request, self._all([query, *documents], ["query"] + ["documents"] * len(documents)))
        asked, offered = vectors[:1], vectors[1:]
        pair = (offered, asked) if query[0] == "text" else (asked, offered)
        scores: list[float] = self.embedder.probabilities(*pair).ravel().tolist()
        results: list[dict[str, Any]] = []
        for place in messages.best_first(scores, body.top_n or len(scores)):
            kind, value = documents[place]
            document = {"document": {kind: value}} if body.return_documents else {}
            results.append({"index": place, "relevance_score": scores[place], **document})
        return {"model": self.name, "results": results}

    # ---- what they stand on

    def _check_model(self, model: str | None) -> None:
        if model not in (None, self.name):
            raise BadRequest(f"this service runs the model {self.name!r}", "model", status=404, code="model_not_found")

    async def _vectors(self, items: Sequence[tuple[str, str]]) -> list[Any]:
        """For each item its vector, or a text that says why there is none."""
        found: list[Any] = [messages.problem_of("image" if kind == "image" else "text", value) for kind, value in items]
        good = [place for place, problem in enumerate(found) if problem is None]
        texts = [place for place in good if items[place][0] == "text"]
        pictures = [place for place in good if items[place][0] == "image"]
        made, seen = await self.engine.embed(
            [items[place][1] for place in texts], [items[place][1] for place in pictures]
        )
        for place, outcome in zip([*texts, *pictures], [*made, *seen], strict=True):
            found[place] = outcome.reason if isinstance(outcome, UnreadableImage) else outcome
        return found

    async def _all(self, items: Sequence[tuple[str, str]], params: Sequence[str]) -> np.ndarray:
        """The vectors of items that must all be good; `params` names the field of each."""
        found = await self._vectors(items)
        for place, outcome in enumerate(found):
            if isinstance(outcome, str):
                number = params[:place].count(params[place])
                raise BadRequest(f"{params[place]} {number}: {outcome}", f"{params[place]}.{number}")
        return np.stack(found)

    async def _all_pictures(self, uris: Sequence[str]) -> np.ndarray:
        return await self._all([("image", uri) for uri in uris], ["images"] * len(uris))

    def _tokens(self, items: Sequence[tuple[str, str]]) -> int:
        vision = self.embedder.model.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        longest = self.embedder.model.config.text_config.max_position_embeddings
        count = self.embedder.processor.tokenizer.count
        return sum(patches if kind == "image" else min(count(value), longest) for kind, value in items)

    # ---- errors

    def _add_errors(self, app: FastAPI) -> None:
        @app.exception_handler(BadRequest)
        async def bad(_: Request, error: Exception) -> JSONResponse:
            assert isinstance(error, BadRequest)
            return _told(error.status, str(error), error.code, error.param)

        @app.exception_handler(Refused)
        async def refused(_: Request, error: Exception) -> JSONResponse:
            assert isinstance(error, Refused)
            self.metrics.rejections.labels(error.reason).inc()
            response = _told(error.status, str(error), error.reason)
            if error.status != 413:
                response.headers["retry-after"] = "1"
            return response

        @app.exception_handler(RequestValidationError)
        async def invalid(_: Request, error: Exception) -> JSONResponse:
            assert isinstance(error, RequestValidationError)
            first = error.errors()[0]
            param = ".".join(str(word) for word in first["loc"][1:])
            return _told(400, f"{param or 'body'}: {first['msg']}", "invalid", param or None)

        @app.exception_handler(HTTPException)
        async def other(_: Request, error: Exception) -> JSONResponse:
            assert isinstance(error, HTTPException)
            return _told(error.status_code, str(error.detail), "not_found" if error.status_code == 404 else "invalid")

        @app.exception_handler(_ClientGone)
        async def gone(_: Request, __: Exception) -> Response:
            return Response(status_code=499)

        _ = bad, refused, invalid, other, gone


class _ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The outcome of `work`, which is given up, and its place in the queues with it, when the client goes away."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise _ClientGone
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(_GONE_S)


def _told(status: int, message: str, code: str, param: str | None = None) -> JSONResponse:
    return JSONResponse(error_body(status, message, code=code, param=param), status_code=status)
