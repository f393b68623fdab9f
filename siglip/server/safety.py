"""What stands before every route: who may ask, by which name, how much and how long, and what no answer leaves without.

Nothing of it is a feature; it is what keeps a service on a laptop from being used by a web page, and one on a network
by strangers.
"""

import asyncio
import base64
import email.message
import hashlib
import hmac
import ipaddress
import json
import logging
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from siglip.errors import InputError, clip
from siglip.server.forms import as_json
from siglip.server.metrics import Metrics

LOG = logging.getLogger("siglip.server")
MAX_BODY_BYTES = 2**26
MAX_BYTES_IN_FLIGHT = 2**29
BODY_TIMEOUT_S = 30.0
# how long a refused body is still taken in and thrown away: a client that sends first and reads then would else see a
# broken connection and never why
_LINGER_S = 2.0

# a value in JSON takes memory of up to a hundred times its bytes; no route takes as many
_MOST_VALUES = 10_000
_FORM = "multipart/form-data"
_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


def read_keys(file: Path) -> tuple[str, ...]:
    """The keys of a file, one a line; blank lines and lines that begin with # are skipped. Raises InputError."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text; write one key a line") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys or min(map(len, keys)) < 16:
        raise InputError(f"{file} must hold keys of 16 characters or more, one a line; make one: openssl rand -hex 24")
    return keys


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def error_body(status: int, message: str, *, code: str, param: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, kind)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _Answered(Exception):
    """The request is answered already, with an error."""


class Guard:
    """The one ASGI layer around the app.

    Without `keys` everybody who reaches the service may ask. `names` are the host names, beside localhost and plain
    addresses, that a request may be meant for: a web page that gave itself a name of this machine is turned away.
    `methods` tells those of a path.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        *,
        methods: Callable[[str], Collection[str]],
        keys: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> None:
        self._app, self._metrics, self._methods = app, metrics, methods
        self._keys = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._names = {"localhost", *(name.lower() for name in names)}
        self._bytes_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send)
        try:
            self._check(request)
            await self._answer(request)
        except _Answered:
            pass
        except _Refusal as refusal:
            self._metrics.rejections.labels(refusal.reason).inc()
            await request.refuse(refusal)
        except Exception:
            if request.status == 500:  # the app has told it
                return
            LOG.exception("request %s failed", request.id)
            if request.status:
                raise
            await request.refuse(_Refusal(500, f"internal error; the log tells more under {request.id}", "internal"))
        finally:
            # the pattern of the route, which FastAPI leaves here, and not what the client wrote
            route = getattr(request.scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(request.status or 499)).inc()
            self._metrics.request_seconds.labels(route).observe(time.monotonic() - request.start)

    def _check(self, request: "_Request") -> None:
        hosts = request.headers(b"host")
        if not hosts or not all(map(self._is_ours, hosts)):
            raise _Refusal(421, "this service does not answer to that host name; start it with --name", "host")
        if self._keys and request.scope["path"] != "/livez":
            digest = hashlib.sha256(_key_of(request.header(b"authorization"))).digest()
            # all are compared, whether or not one has matched
            matches = [hmac.compare_digest(digest, known) for known in self._keys]
            if not any(matches):
                raise _Refusal(401, "no valid key; send Authorization: Bearer KEY", "invalid_api_key")
        # a browser says which site a page that sends something is of, and another one has no business here
        origin = request.header(b"origin")
        if origin and origin.partition("://")[2].lower() != request.header(b"host").lower():
            raise _Refusal(403, "pages of other sites may not use this service", "origin")
        if request.scope["method"] != "POST" or "POST" not in self._methods(request.scope["path"]):
            return
        # a form that such a page may send without asking has another type, if it has anything in it
        empty = request.header(b"content-length") == "0"
        if request.media_type() not in ("application/json", _FORM) and not empty:
            raise _Refusal(415, f"send JSON as application/json, or files as {_FORM}", "content_type")
        if problem := request.encoding_problem():
            raise _Refusal(415, problem, "content_encoding")

    def _is_ours(self, host: str) -> bool:
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    async def _answer(self, request: "_Request") -> None:
        if request.scope["method"] == "HEAD":
            # answered as GET; the server, which has the scope as it was, leaves the body out
            request.scope = {**request.scope, "method": "GET"}
        if request.scope["method"] not in ("POST", "PUT", "PATCH"):
            await self._app(request.scope, request.receive_body_of(b""), request.send)
            return
        announced = request.announced_bytes()
        if announced > MAX_BODY_BYTES:
            message = f"the body has {announced} bytes, the limit is {MAX_BODY_BYTES}; send less"
            raise _Refusal(413, message, "too_large")
        self._check_room(announced)
        taken = 0

        def take(count: int) -> None:
            # what has come is counted, and not what is announced: eight clients that say much and send nothing would
            # else keep all others out
            nonlocal taken
            self._check_room(count)
            self._bytes_in_flight += count
            taken += count

        try:
            body = await request.body(take)
            if request.media_type() == _FORM:
                body = await _written_as_json(request, body)
            else:
                _check_json(body)
            await self._app(request.scope, request.receive_body_of(body), request.send)
        finally:
            self._bytes_in_flight -= taken

    def _check_room(self, count: int) -> None:
        if self._bytes_in_flight + count > MAX_BYTES_IN_FLIGHT:
            raise _Refusal(429, "too much is being read; try again in a second", "bytes_in_flight")


def _check_json(body: bytes) -> None:
    """Turn away what would cost too much to be read at all."""
    if b"\0" in body:  # as UTF-16 has it, which Python would read too
        raise _Refusal(400, "the body is not JSON in UTF-8", "invalid")
    if _marks(body) <= _MOST_VALUES:
        return
    # all of them may stand in texts: without escapes, every other quote ends a string
    parts = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', 4 * _MOST_VALUES)
    if len(parts) > 4 * _MOST_VALUES or sum(map(_marks, parts[::2])) > _MOST_VALUES:
        raise _Refusal(413, f"the body holds more than {_MOST_VALUES} values; send less", "too_large")


def _marks(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


async def _written_as_json(request: "_Request", form: bytes) -> bytes:
    try:
        body = await as_json(form, request.header(b"content-type"))
    except ValueError as error:
        raise _Refusal(400, str(error), "form") from error
    kept = [(key, value) for key, value in request.scope["headers"] if key not in (b"content-type", b"content-length")]
    request.scope["headers"] = [*kept, (b"content-type", b"application/json")]
    return body


def _key_of(authorization: str) -> bytes:
    """The key that was sent, as a program sends it or as the password that a browser asks a person for."""
    scheme, _, key = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return key.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(key.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return b""


class _Refusal(Exception):
    """A request turned away before it reached a route."""

    def __init__(self, status: int, message: str, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class _Request:
    """A request on its way in, and its answer on the way out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.id = secrets.token_hex(8)
        self.start = time.monotonic()
        self.status = 0
        self._body_is_read = False
        scope.setdefault("state", {})["request_id"] = self.id

    def headers(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == name]

    def header(self, name: bytes) -> str:
        return next(iter(self.headers(name)), "")

    def media_type(self) -> str:
        return self.header(b"content-type").split(";")[0].strip().lower()

    def encoding_problem(self) -> str | None:
        """Why the bytes of the body are not those of its text or form."""
        packed = [way for way in self.headers(b"content-encoding") if way.strip().lower() not in ("", "identity")]
        if packed:
            return (
                f"the body is sent with Content-Encoding {clip(repr(packed[0]))}; send it as it is, without that header"
            )
        words = email.message.Message()
        words["content-type"] = self.header(b"content-type")
        charset = words.get_content_charset("utf-8")
        if charset not in ("utf-8", "utf8", "us-ascii"):
            return f"the body is sent in the charset {clip(repr(charset))}; send it in UTF-8"
        return None

    def announced_bytes(self) -> int:
        length = self.header(b"content-length")
        return int(length) if length.isascii() and length.isdigit() else 0

    async def body(self, take: Callable[[int], None]) -> bytes:
        """All of it, within the limits of size and time; `take` is told of each part, and may raise _Refusal."""
        parts = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise _Answered
                    part = message.get("body", b"")
                    take(len(part))
                    parts += part
                    if len(parts) > MAX_BODY_BYTES:
                        raise _Refusal(413, f"the body passes {MAX_BODY_BYTES} bytes; send less", "too_large")
                    if not message.get("more_body"):
                        self._body_is_read = True
                        return bytes(parts)
        except TimeoutError:
            raise _Refusal(408, f"the body took more than {BODY_TIMEOUT_S:g} seconds", "slow_body") from None

    def receive_body_of(self, body: bytes) -> Receive:
        """What hands the app the body at once, and then says when the client is gone."""
        given = False

        async def receive() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await self._receive()

        return receive

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = list(message.get("headers", ()))
            said = {name for name, _ in own}
            # a route may say otherwise: the page its policy, a thumbnail how long it may be kept
            headers = [*own, *(header for header in _HEADERS if header[0] not in said)]
            headers.append((b"x-request-id", self.id.encode()))
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, refusal: _Refusal) -> None:
        body = json.dumps(error_body(refusal.status, str(refusal), code=refusal.reason)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        # what is left of the body is not read, so the connection cannot be used again
        headers += [(b"connection", b"close")]
        headers += [(b"retry-after", b"1")] if refusal.status in (429, 503) else []
        # two headers, since browsers read one way of a header only; they ask a person for a name and a password
        ways = (b"Bearer", b'Basic realm="siglip: any name, and a key as password"')
        headers += [(b"www-authenticate", way) for way in ways] if refusal.status == 401 else []
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await self._discard_body()
        await self._send({"type": "http.response.body"})

    async def _discard_body(self) -> None:
        while not self._body_is_read:
            message = await self._receive()
            self._body_is_read = message["type"] == "http.disconnect" or not message.get("more_body")
