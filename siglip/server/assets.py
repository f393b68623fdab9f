"""The files of the web pages, read once -> `/`, `/docs` and `/page/NAME`. They use the routes that all can use."""

from importlib import resources
from pathlib import PurePath

from fastapi import FastAPI, Response

from siglip.server.messages import BadRequest

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# no script, style, picture or connection from anywhere else, and nothing inline; data: is a picture that was dropped
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_page(app: FastAPI) -> None:
    """The routes of the page."""
    folder = resources.files("siglip.server") / "page"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if PurePath(file.name).suffix in _KINDS}

    def sent(name: str) -> Response:
        return Response(
            files[name],
            media_type=f"{_KINDS[PurePath(name).suffix]}; charset=utf-8",
            headers={"content-security-policy": _POLICY},
        )

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return sent("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return sent("docs.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in files:
            raise BadRequest("the page has no such file", status=404, code="not_found")
        return sent(name)

    _ = page, docs, asset
