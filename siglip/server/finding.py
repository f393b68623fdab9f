"""A library -> `/v1/search` and its thumbnails. Pictures are named by id; no path is taken from a client."""

from typing import Annotated, Any

from fastapi import FastAPI, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from siglip.errors import InputError, LibraryError
from siglip.search import Hit, Library
from siglip.search.query import parse_query
from siglip.search.where import parse_where
from siglip.server.messages import BadRequest

Digest = Annotated[str, Path(pattern="^[0-9a-f]{8,128}$")]


class SearchRequest(BaseModel):
    """`query` in the library's language, or `similar_to` the id of a picture; `where` is a filter."""

    model_config = ConfigDict(extra="forbid")
    query: str | None = Field(default=None, max_length=10_000)
    similar_to: Annotated[str, Field(pattern="^[0-9a-f]{8,128}$")] | None = None
    where: str | None = Field(default=None, max_length=10_000)
    top: int = Field(default=20, ge=1, le=1000)
    page: int = Field(default=1, ge=1, le=1000)
    min_probability: float = Field(default=0.0, ge=0.0, le=1.0)


def add_search(app: FastAPI, library: Library) -> None:
    """The routes of a library."""

    @app.post("/v1/search")
    async def search(body: SearchRequest) -> dict[str, Any]:
        """Pictures of the library, the best first."""
        if (body.query is None) == (body.similar_to is None):
            raise BadRequest("give `query` or `similar_to`, one of them", "query")
        try:
            hits = await run_in_threadpool(_found, library, body)
        except InputError as error:
            raise BadRequest(str(error), "query") from error
        except LibraryError as error:
            raise BadRequest(
                "the library cannot answer now; is it being rebuilt?", status=503, code="library"
            ) from error
        return {"object": "list", "page": body.page, "data": [_as_record(hit) for hit in hits]}

    @app.get("/v1/thumbnails/{digest}")
    async def thumbnail(digest: Digest) -> Response:
        """A small WebP picture without metadata."""
        data = await run_in_threadpool(library.thumbnail, digest)
        if data is None:
            raise BadRequest("no picture has this id", "digest", status=404, code="not_found")
        return Response(data, media_type="image/webp")

    _ = search, thumbnail


def _found(library: Library, body: SearchRequest) -> list[Hit]:
    first = body.top * (body.page - 1)
    condition = parse_where(body.where) if body.where is not None else None
    if body.similar_to is not None:
        paths = library.catalogue.paths([body.similar_to])[0].get(body.similar_to)
        if not paths:
            raise BadRequest("no picture has this id", "similar_to", status=404, code="not_found")
        path = paths[0] if isinstance(paths[0], str) else paths[0].decode("utf-8", "surrogateescape")
        return library.similar(path, where=body.where, top=body.top * body.page, min_probability=body.min_probability)[
            first:
        ]
    terms = parse_query(body.query or "")
    # on the command line these are files and addresses; a client may name neither
    if any(term.picture is not None for term in terms):
        raise BadRequest("a query holds words only; put what looks like a path or an address in double quotes", "query")
    vector = library.query_vector(terms)
    return library.searcher.hits(vector, body.top * body.page, where=condition, least=body.min_probability)[first:]


def _as_record(hit: Hit) -> dict[str, Any]:
    return {
        "id": hit.digest,
        "rank": hit.rank,
        "score": hit.score,
        "probability": hit.probability,
        "paths": list(hit.paths),
        "width": hit.image.width,
        "height": hit.image.height,
        "taken": hit.image.taken,
    }
