"""The app: which routes there are, what every error looks like, and whether requests should be sent here."""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from siglip import __version__
from siglip.captioner import Captioner
from siglip.embedder import Embedder
from siglip.errors import LibraryError, clip
from siglip.search import Library
from siglip.server import answers
from siglip.server.answers import as_described
from siglip.server.assets import add_page
from siglip.server.batches import Refused
from siglip.server.comparing import Comparing
from siglip.server.engine import DEFAULT_LIMITS, Engine, Limits
from siglip.server.explaining import add_explain
from siglip.server.fetching import Fetcher
from siglip.server.finding import Finding
from siglip.server.messages import BadRequest
from siglip.server.metrics import Metrics
from siglip.server.pictures import add_pictures
from siglip.server.safety import Guard, error_body
from siglip.server.schema import describe
from siglip.server.sources import Sources
from siglip.server.waiting import ClientGone
from siglip.server.writing import Writing

LOG = logging.getLogger("siglip.server")
# newer versions of FastAPI report to a collector that the environment names, and ask for each request whether to
_NO_TELEMETRY: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)


class Service:
    """Models behind HTTP; `asgi` is what a server runs. `ready` is False until it is warm, and while it drains.

    `watched` tells that somebody asks whether it is.

    `name` is what clients call the embedder's model; `captioner` is another one that writes, and its name;
    with a `fetcher` pictures may be named by web addresses.
    """

    def __init__(
        self,
        embedder: Embedder,
        name: str,
        *,
        keys: Sequence[str] = (),
        names: Sequence[str] = (),
        library: Library | None = None,
        captioner: tuple[Captioner, str] | None = None,
        fetcher: Fetcher | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.embedder, self.name, self._library = embedder, name, library
        self.metrics = Metrics()
        model, self._captioner = captioner if captioner is not None else (None, None)
        self.engine = Engine(embedder, self.metrics, Sources(library, fetcher), captioner=model, limits=limits)
        self.ready = self.watched = False
        app = FastAPI(
            title="siglip", version=__version__, docs_url=None, redoc_url=None, lifespan=self._lifespan,
            # behind a proxy with a certificate it would lead a client and its key to an address without one
            redirect_slashes=False, telemetry=_NO_TELEMETRY,
        )  # fmt: skip
        app.get("/livez", **as_described(answers.Alive))(self.livez)
        app.get("/readyz", response_model=answers.Ready, responses={503: {"model": answers.Ready}})(self.readyz)
        app.get("/metrics", response_class=PlainTextResponse)(self.numbers)
        app.get("/v1/models", **as_described(answers.Models))(self.models)
        app.get("/v1/models/{name:path}", **as_described(answers.ModelFacts))(self.one_model)
        comparing = Comparing(app, self.engine, name)
        Writing(app, self.engine, self._captioner)
        add_explain(app, self.engine, name)
        if library is not None:
            Finding(app, comparing, library)
            add_pictures(app, library)
        add_page(app)
        self._add_errors(app)
        describe(app, with_keys=bool(keys))
        self.asgi: ASGIApp = Guard(app, self.metrics, methods=partial(_allowed, app), keys=keys, names=names)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncGenerator[None]:
        await self.engine.warm()
        self.ready = True
        yield
        self.ready = False
        self.engine.close()

    async def livez(self) -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "ok"}

    async def readyz(self) -> JSONResponse:
        """Whether requests should be sent here."""
        self.watched = True
        return JSONResponse({"ready": self.ready}, status_code=200 if self.ready else 503)

    async def numbers(self) -> Response:
        """For Prometheus."""
        if self._library is not None:
            with suppress(LibraryError):
                status = await run_in_threadpool(self._library.status)
                self.metrics.library_pictures.set(status.pictures)
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(self) -> dict[str, Any]:
        """The model that compares, and the one that writes if there is one."""
        config = self.embedder.model.config
        model = {"object": "model", "created": 0, "owned_by": "siglip"}
        data: list[dict[str, Any]] = [
            {
                "id": self.name, **model, "dimensions": config.text_config.embedding_size,
                "image_size": config.vision_config.image_size, "max_tokens": config.text_config.max_position_embeddings,
                "fingerprint": self.embedder.fingerprint,
            }
        ]  # fmt: skip
        if self._captioner is not None:
            data.append({"id": self._captioner, **model})
        return {"object": "list", "data": data}

    async def one_model(self, name: Annotated[str, Path(min_length=1, max_length=255)]) -> dict[str, Any]:
        """One of those that are listed."""
        listed = (await self.models())["data"]
        for facts in listed:
            if facts["id"] == name:
                return facts
        names = " and ".join(repr(facts["id"]) for facts in listed)
        raise BadRequest(f"no model {clip(repr(name))} here, only {names}", "model", status=404, code="model_not_found")

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
            message, param = _wrong(error)
            return _told(400, f"{param or 'body'}: {message}", "invalid", param or None)

        @app.exception_handler(HTTPException)
        async def other(request: Request, error: Exception) -> JSONResponse:
            assert isinstance(error, HTTPException)
            if error.status_code == 404:
                return _told(404, "nothing is at this path; /openapi.json describes all routes", "not_found")
            # FastAPI says 400 of a body only where it could not be read at all
            unread = "the body is not JSON that can be read; send one object, in UTF-8"
            told = _told(error.status_code, unread if error.status_code == 400 else str(error.detail), "invalid")
            if error.status_code == 405:
                told.headers["allow"] = ", ".join(_allowed(app, request.url.path))
            return told

        @app.exception_handler(ClientGone)
        async def gone(_: Request, __: Exception) -> Response:
            return Response(status_code=499)

        @app.exception_handler(Exception)
        async def ours(request: Request, error: Exception) -> JSONResponse:
            LOG.error("request %s failed", request.state.request_id, exc_info=error)
            return _told(500, f"internal error; the log tells more under {request.state.request_id}", "internal")

        _ = bad, refused, invalid, other, gone, ours


def _wrong(error: RequestValidationError) -> tuple[str, str]:
    """What is wrong in a request, and in which field."""
    found: dict[tuple[bool, int, str], list[str]] = {}
    for one in error.errors():
        kind, message = one["type"], one["msg"]
        if kind == "json_invalid":
            return f"not JSON: {one['ctx']['error']} at character {one['loc'][-1]}", ""
        place = _place(one, error.body)
        is_plain = kind not in ("extra_forbidden", "missing")
        message = "Input should be an object" if kind.startswith("model_") else message
        found.setdefault((is_plain, len(place), ".".join(place)), []).append(message)
    # of a field that may be several things all errors are told, and the innermost are nearest to what was meant
    best = max(found, key=lambda rank: rank[:2])
    return ", or ".join(dict.fromkeys(found[best])), best[2]


def _place(error: dict[str, Any], body: Any) -> list[str]:
    """Where an error is, in words of the request: pydantic adds the names of its types."""
    source, *words = error["loc"]
    if source != "body":
        return list(map(str, words))
    place: list[str] = []
    for word in words:
        if isinstance(word, int) if isinstance(body, list) else isinstance(body, dict) and word in body:
            place.append(str(word))
            body = body[word]
    return [*place, str(words[-1])] if error["type"] == "missing" and words else place


def _allowed(app: FastAPI, path: str) -> list[str]:
    """The methods of all routes that lie at a path."""
    routes = [route for route in app.routes if isinstance(route, APIRoute) and route.path_regex.match(path)]
    methods = {method for route in routes for method in route.methods or ()}
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _told(status: int, message: str, code: str, param: str | None = None) -> JSONResponse:
    return JSONResponse(error_body(status, message, code=code, param=param), status_code=status)
