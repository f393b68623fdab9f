"""A library -> search, thumbnails, duplicates and its status. Pictures are named by id; no path comes from a client."""

import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor

from siglip.errors import InputError, LibraryError
from siglip.search import Hit, Image, Library
from siglip.search.browsing import progress
from siglip.search.duplicates import Duplicates, find_duplicates
from siglip.search.query import Term, combined, parse_query
from siglip.search.searching import by_date
from siglip.search.where import Where, parse_where
from siglip.server import answers, messages
from siglip.server.answers import a_file, as_described
from siglip.server.comparing import Comparing
from siglip.server.messages import BadRequest, Question, SearchRequest
from siglip.server.waiting import unless_gone

T = TypeVar("T")
Digest = Annotated[messages.Id, Path()]


class _Hexadecimal(StringConvertor):
    """What may be an id, and no other word: a route such as /v1/pictures/zip is not one of a picture called "zip"."""

    regex = "[0-9a-f]+"


register_url_convertor("digest", _Hexadecimal())


class Finding:
    """The routes of a library, with vectors from the model that serves."""

    def __init__(self, app: FastAPI, comparing: Comparing, library: Library) -> None:
        self.comparing, self.library = comparing, library
        self._copies: tuple[object, list[Duplicates]] = (None, [])
        self._looking = threading.Lock()
        app.post("/v1/search", **as_described(answers.Hits))(self.search)
        app.get("/v1/search", **as_described(answers.Hits))(self.search_by_address)
        app.get("/v1/library", **as_described(answers.LibraryFacts))(self.status)
        app.get("/v1/duplicates", **as_described(answers.DuplicatesPage))(self.duplicates)
        app.get("/v1/thumbnails/{digest:digest}", **a_file("image/webp"))(self.thumbnail)

    async def search(self, body: SearchRequest, request: Request) -> dict[str, Any]:
        """Pictures of the library, the best first; `confidence` is how sure it is that there is any such picture."""
        if body.similar_to is not None:
            if body.query is not None or body.like or body.not_like:
                raise BadRequest("give `similar_to` alone; for more, put `id:...` into `like`", "similar_to")
            hits = await answered(lambda: run_in_threadpool(self._similar, body, body.similar_to or ""))
        else:
            hits = await answered(lambda: self._found(body, request))
        return {"object": "list", "page": body.page, "data": [_as_record(hit) for hit in hits]}

    async def search_by_address(self, question: Annotated[Question, Query()], request: Request) -> dict[str, Any]:
        """The same by an address that can be kept; pictures that are not in the library need the other way."""
        return await self.search(SearchRequest(**question.model_dump()), request)

    async def thumbnail(self, digest: Digest) -> Response:
        """A small WebP picture without metadata."""
        data = await answered(lambda: run_in_threadpool(self.library.thumbnail, digest))
        if data is None:
            raise BadRequest("no picture has this id", "digest", status=404, code="not_found")
        return Response(
            data, media_type="image/webp", headers={"cache-control": "private, max-age=31536000, immutable"}
        )

    async def duplicates(
        self,
        exact: bool = False,
        top: Annotated[int, Query(ge=1, le=1000)] = 50,
        page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    ) -> dict[str, Any]:
        """Groups of files that hold the same picture, the one to keep first; `exact` counts equal bytes only."""
        groups = await answered(lambda: run_in_threadpool(self._duplicates, exact))
        data = [
            {
                "exact": group.exact,
                "copies": [{"id": copy.digest, **_without(asdict(copy), "digest")} for copy in group.copies],
            }
            for group in groups[top * (page - 1) : top * page]
        ]
        return {"object": "list", "page": page, "total": len(groups), "data": data}

    async def status(self) -> dict[str, Any]:
        """What the library holds, the folders that it was made of, and how far a process is that indexes now."""
        found = await answered(lambda: run_in_threadpool(self.library.status))
        running = await answered(lambda: run_in_threadpool(progress, self.library.catalogue))
        indexing = asdict(running) if running is not None else None
        return {**_without(asdict(found), "folder", "rescored", "coded"), "indexing": indexing}

    def _similar(self, body: SearchRequest, digest: str) -> list[Hit]:
        library, condition = self.library, condition_of(body.where)
        vector = library.searcher.vector_of(bytes.fromhex(digest))
        if vector is None:
            raise BadRequest("no picture has this id", "similar_to", status=404, code="not_found")
        hits = library.searcher.hits(
            vector, body.top * body.page, where=condition, least=body.min_probability, without=digest
        )[body.top * (body.page - 1) :]
        return by_date(hits) if body.sort == "date" else hits

    async def _found(self, body: SearchRequest, request: Request) -> list[Hit]:
        condition = condition_of(body.where)
        like, not_like = messages.names_of(body.like), messages.names_of(body.not_like)
        words = parse_query(body.query) if body.query is not None else []
        # on the command line these are files and addresses; a client may name neither
        if any(term.text is None for term in words):
            raise BadRequest(
                "put what looks like a path or an address in double quotes; pictures go in `like`", "query"
            )
        weights = [*map(messages.weight_of, body.like), *(-messages.weight_of(picture) for picture in body.not_like)]
        terms = words + [Term(weight, picture=name) for weight, name in zip(weights, like + not_like, strict=True)]
        if not terms:
            raise BadRequest("give a `query`, pictures to be `like`, or `similar_to` an id", "query")
        space = await run_in_threadpool(lambda: self.library.space)
        if space.fingerprint != self.comparing.embedder.fingerprint:
            raise LibraryError("the library was indexed with another model")
        items = [("text", term.text) if term.text is not None else ("image", term.picture or "") for term in terms]
        params = ["query"] * len(words) + ["like"] * len(like) + ["not_like"] * len(not_like)
        vectors = await unless_gone(request, self.comparing.all_vectors(items, params))
        return await run_in_threadpool(self._nearest, body, terms, vectors, condition)

    def _nearest(self, body: SearchRequest, terms: list[Term], vectors: np.ndarray, condition: Any) -> list[Hit]:
        count, vector = body.top * body.page, combined(terms, vectors)
        hits = self.library.searcher.hits(vector, count, where=condition, least=body.min_probability)
        hits = self.library.judged(hits[body.top * (body.page - 1) :], terms, vectors)
        return by_date(hits) if body.sort == "date" else hits

    def _duplicates(self, exact: bool) -> list[Duplicates]:
        """As they were found last, unless the library has changed since: all pictures are compared with all."""
        with self._looking:
            state = exact, self._version()
            if self._copies[0] != state:
                self._copies = state, find_duplicates(self.library, exact=exact)
            return self._copies[1]

    def _version(self) -> object:
        names = ("catalogue.db", "catalogue.db-wal")
        files = [self.library.folder / name for name in names]
        return [(file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None for file in files]


def condition_of(where: str | None) -> Where | None:
    """A filter. Raises BadRequest."""
    try:
        return parse_where(where) if where is not None else None
    except InputError as error:
        raise BadRequest(str(error), "where") from error


async def answered(work: Callable[[], Awaitable[T]]) -> T:
    """What the library answers, and what is wrong in words that name no file of this machine."""
    try:
        return await work()
    except InputError as error:
        raise BadRequest(str(error), "query") from error
    except LibraryError as error:
        raise BadRequest(
            "the library cannot answer now; is it empty, or being rebuilt?", status=503, code="library"
        ) from error


def _without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def record_of(image: Image, paths: Sequence[str]) -> dict[str, Any]:
    """What a client is told of a picture."""
    return {
        "id": image.digest,
        "paths": list(paths),
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "taken": image.taken,
        "camera": image.camera,
    }


def _as_record(hit: Hit) -> dict[str, Any]:
    facts = {
        "rank": hit.rank,
        "score": hit.score,
        "probability": hit.probability,
        "confidence": hit.confidence,
        "sure": hit.sure,
    }
    return {**record_of(hit.image, hit.paths), **facts}
