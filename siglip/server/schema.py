"""The app -> its OpenAPI description, with what FastAPI cannot know: forms, errors before the routes, and keys."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from siglip.server.answers import Error

_FORM = "multipart/form-data"
_ALWAYS = {
    403: "The request was sent by a page of another site.",
    421: "The service does not answer to this host name.",
    500: "An error of the service; its log tells more under the id in the header x-request-id.",
}
_OF_INPUT = {400: "The request is not understood; `param` names the field.", 404: "No such picture, or no such model."}
_OF_BODIES = {
    408: "The body took too long to come.",
    413: "It can never fit: the body or the work is too large.",
    415: f"The body is neither application/json nor {_FORM}, or it is compressed, or not in UTF-8.",
}
_OF_WORK = {
    429: "The service has taken on all it can; try again in a second.",
    503: "It waited too long, or the library cannot answer now.",
}
_OF_KEYS = {401: "No valid key was sent."}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "Any name, and a key as password."},
}
_FILE = {"type": "string", "format": "binary"}


def describe(app: FastAPI, *, with_keys: bool) -> None:
    """Let /openapi.json tell all of it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, with_keys)
        return app.openapi_schema

    app.openapi = openapi


def _described(app: FastAPI, with_keys: bool) -> dict[str, Any]:
    about = "Pictures are data URIs, or files in a form with the same fields. Errors have OpenAI's shape."
    schema = get_openapi(title=app.title, version=app.version, description=about, routes=app.routes)
    parts = schema["components"]["schemas"]
    error = Error.model_json_schema(ref_template="#/components/schemas/{model}")
    parts |= error.pop("$defs") | {"Error": error}
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which are never sent
        parts.pop(name, None)
    if with_keys:
        schema["components"]["securitySchemes"] = _KEYS
    for path, ways in schema["paths"].items():
        for operation in ways.values():
            keyed = with_keys and path != "/livez"
            if keyed:
                operation["security"] = [{scheme: []} for scheme in _KEYS]
            if "requestBody" in operation:
                content = operation["requestBody"]["content"]
                content[_FORM] = {"schema": _form(content["application/json"]["schema"], parts)}
            operation["responses"].pop("422", None)
            for status, meaning in _errors(path, operation, keyed).items():
                told = {"schema": {"$ref": "#/components/schemas/Error"}}
                answer = {"description": meaning, "content": {"application/json": told}}
                operation["responses"].setdefault(str(status), answer)
    return schema


def _errors(path: str, operation: dict[str, Any], keyed: bool) -> dict[int, str]:
    errors = _ALWAYS | (_OF_KEYS if keyed else {})
    if "parameters" in operation or "requestBody" in operation:
        errors |= _OF_INPUT
    if "requestBody" in operation:
        errors |= _OF_BODIES
    return errors | (_OF_WORK if path.startswith("/v1/") else {})


def _form(body: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """The fields of a JSON body as a form holds them: files for pictures; what is made of other objects is left out."""
    model = parts[body["$ref"].split("/")[-1]]
    fields: dict[str, Any] = {}
    for name, field in model["properties"].items():
        words = str(field)
        ways = field.get("anyOf", [field])
        if "PictureItem" in words or "WeightedPicture" in words:
            lists = [{**way, "items": _FILE} for way in ways if way.get("type") == "array"]
            fields[name] = {"anyOf": [*lists, _FILE]}
        elif "$ref" not in words:
            # a form has no way to say null: the field is left out
            said = [way for way in ways if way != {"type": "null"}]
            fields[name] = {**field, "anyOf": said} if "anyOf" in field else field
    required = [name for name in model.get("required", ()) if name in fields]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
