"""A library -> its pictures without a question, and their files: by id, one of them or many in a zip."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, count
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from siglip.errors import UnreadableImage
from siglip.search import Library
from siglip.search.browsing import Contents, browse, contents, original, picture
from siglip.server import answers
from siglip.server.answers import a_file, as_described
from siglip.server.finding import Digest, answered, condition_of, record_of
from siglip.server.messages import BadRequest, ListRequest, ZipRequest

# what every browser shows; anything else is sent as WebP of at most so many pixels a side
_SHOWN = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp", "BMP": "image/bmp"}
_SHOWN_PX = 2048
# the bytes behind an id never change, but may be taken away
_KEPT = {"cache-control": "private, max-age=3600"}


def add_pictures(app: FastAPI, library: Library) -> None:
    """The routes."""

    @app.get("/v1/pictures", **as_described(answers.PicturesPage))
    async def pictures(asks: Annotated[ListRequest, Query()]) -> dict[str, Any]:
        """All pictures, or those for which a filter holds."""
        total, found = await answered(lambda: run_in_threadpool(_listed, library, asks))
        data = [record_of(image, paths) for image, paths in found]
        return {"object": "list", "page": asks.page, "total": total, "data": data}

    @app.get("/v1/pictures/{digest:digest}.json", **as_described(answers.Picture))
    async def facts(digest: Digest) -> dict[str, Any]:
        """What is known of one picture."""
        found = await answered(lambda: run_in_threadpool(picture, library, digest))
        if found is None:
            raise _unknown()
        return record_of(*found)

    @app.get("/v1/pictures/{digest:digest}", **a_file(*_SHOWN.values()))
    async def file(digest: Digest) -> Response:
        """One picture as it is, or as WebP where browsers do not show its format."""
        return await answered(lambda: run_in_threadpool(_shown, library, digest))

    @app.post("/v1/pictures/zip", **a_file("application/zip"))
    async def zipped(body: ZipRequest) -> StreamingResponse:
        """The files of some pictures, under their names."""
        ids = list(dict.fromkeys(body.ids))
        return StreamingResponse(_zipped(library, ids), media_type="application/zip")

    @app.get("/v1/library/contents", **as_described(Contents))
    async def what_there_is() -> dict[str, Any]:
        """Numbers of pictures by folder, format and year."""
        return asdict(await answered(lambda: run_in_threadpool(contents, library)))

    _ = pictures, facts, file, zipped, what_there_is


def _listed(library: Library, asks: ListRequest) -> Any:
    condition_of(asks.where)
    return browse(library, where=asks.where, order=asks.order, top=asks.top, page=asks.page)


def _unknown() -> BadRequest:
    return BadRequest("no picture has this id", "digest", status=404, code="not_found")


def _shown(library: Library, digest: str) -> Response:
    known, found = picture(library, digest), original(library, digest)
    if known is None or found is None:
        raise _unknown()
    kind = _SHOWN.get(known[0].format or "")
    if kind is not None:
        return Response(found[1], media_type=kind, headers=_KEPT)
    from siglip.processing.decode import read_image

    try:
        image = read_image(found[1], at_least_px=_SHOWN_PX).copy()
    except UnreadableImage as error:
        raise BadRequest("this picture cannot be decoded any more", "digest", status=404, code="not_found") from error
    image.thumbnail((_SHOWN_PX, _SHOWN_PX))
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return Response(buffer.getvalue(), media_type="image/webp", headers=_KEPT)


class _Pipe(io.RawIOBase):
    """What was written and not yet sent: a zip file that is never whole in memory."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _zipped(library: Library, ids: list[str]) -> Iterator[bytes]:
    """Stored, since pictures are packed already; equal names get a number. What is gone is listed in a text file."""
    pipe = _Pipe()
    names: set[str] = set()
    gone: list[str] = []
    with zipfile.ZipFile(pipe, "w") as archive:
        for digest in ids:
            found = original(library, digest)
            if found is None:
                gone.append(digest)
                continue
            path = PurePath(found[0])
            numbered = (f"{path.stem} ({number}){path.suffix}" for number in count(2))
            name = next(name for name in chain([path.name], numbered) if name not in names)
            names.add(name)
            archive.writestr(name, found[1])
            yield pipe.taken()
        if gone:
            archive.writestr("not-found.txt", "".join(f"{digest}\n" for digest in gone))
    yield pipe.taken()
