"""A picture and texts of a request -> where in the picture the model sees them, as numbers or as a picture."""

import io
from typing import Any

from fastapi import FastAPI, Request, Response
from PIL import Image

from siglip.errors import InputError, UnreadableImage
from siglip.search.explain import heat_over
from siglip.server import messages
from siglip.server.answers import Explained
from siglip.server.engine import Engine
from siglip.server.messages import BadRequest
from siglip.server.waiting import unless_gone

_MAP_PX = 768
_PNG: dict[str, Any] = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {200: {"model": Explained, "content": _PNG}}


def add_explain(app: FastAPI, engine: Engine, name: str) -> None:
    """The route `/v1/explain`; `name` is what clients call the model."""

    @app.post("/v1/explain", response_model=None, responses=_RESPONSES)
    async def explain(body: messages.ExplainRequest, request: Request) -> dict[str, Any] | Response:
        """Heat of each text in the picture: rows and columns of shares that sum to 1, or one map as a PNG file."""
        messages.check_model(body.model, name)
        (source,) = messages.names_of([body.image])
        if problem := engine.sources.problem(source):
            raise BadRequest(problem, "image")
        for place, text in enumerate(body.texts):
            if problem := messages.problem_of_text(text):
                raise BadRequest(problem, f"texts.{place}")
        if body.format == "png" and len(body.texts) != 1:
            raise BadRequest(f"a PNG file shows one text, got {len(body.texts)}", "texts")
        try:
            picture = await unless_gone(request, engine.shown(source))
            heat = await unless_gone(request, engine.heat(picture, body.texts))
        except UnreadableImage as error:
            raise BadRequest(error.reason, "image") from error
        except InputError as error:
            raise BadRequest(str(error), "texts") from error
        if body.format == "png":
            picture.thumbnail((_MAP_PX, _MAP_PX))
            return Response(_png(heat_over(picture, heat[0])), media_type="image/png")
        maps = [
            {"text": text, "heat": [[round(share, 6) for share in row] for row in rows.tolist()]}
            for text, rows in zip(body.texts, heat, strict=True)
        ]
        return {"object": "list", "model": name, "width": picture.width, "height": picture.height, "data": maps}

    _ = explain


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
