"""An http(s) URL -> its bytes, within a size and a time. Only called for a URL that the caller named.

The rim of the house (embedder, pipelines, command line, a table that was asked to) turns addresses into bytes here;
nothing further in reaches a network.
"""

import base64
import queue
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TypeVar

from siglip.errors import DownloadError, UnreadableImage

T = TypeVar("T")

MAX_BYTES = 2**26
TIMEOUT_S = 30.0
# what an address may hold besides letters and digits
_KEPT = "!#$%&'()*+,/:;=?@[]~"


def is_data_uri(text: str) -> bool:
    """Whether this is a file written out as text: data:image/png;base64,..."""
    return text[:5].lower() == "data:"


def data_uri_bytes(uri: str) -> bytes:
    """The file that a data URI holds, in base64 if its head says so, else percent-encoded; raises ValueError."""
    head, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("has no comma between head and content; write data:image/png;base64,...")
    if not head.lower().endswith(";base64"):
        return urllib.parse.unquote_to_bytes(body)
    try:
        # blanks and line ends may stand anywhere, padding may be missing, - and _ may stand for + and /
        text = "".join(urllib.parse.unquote(body).split()).rstrip("=").translate(str.maketrans("-_", "+/"))
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ValueError(f"is not valid base64 ({error}); encode the file again") from error


def is_url(text: str) -> bool:
    """Whether this is a web address, and not a path."""
    return text.lower().startswith(("http://", "https://"))


def fetched(picture: T, timeout_s: float | None = None) -> T | bytes:
    """The bytes behind a text that is a web address; anything else as it is. Raises UnreadableImage."""
    if not (isinstance(picture, str) and is_url(picture)):
        return picture
    try:
        return download(picture, timeout_s)
    except DownloadError as error:
        raise UnreadableImage(picture, str(error)) from error


def download(url: str, timeout_s: float | None = None) -> bytes:
    """What the server answers to GET, at most MAX_BYTES within `timeout_s` (TIMEOUT_S) in all; raises DownloadError.

    Runs in a thread of its own, because neither the look-up of a name nor a header that trickles in obeys the time
    limit of a socket.
    """
    answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    timeout_s = timeout_s or TIMEOUT_S
    deadline = time.monotonic() + timeout_s

    def work() -> None:
        try:
            answers.put(_get(url, deadline, timeout_s))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=work, name="siglip-download", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        answer = TimeoutError()
    if isinstance(answer, bytes):
        return answer
    raise DownloadError(f"cannot be downloaded: {_reason(answer, timeout_s)}") from answer


def ascii_url(url: str) -> str:
    """The address as it travels: letters beyond ASCII and blanks percent-encoded, those of the host as in IDNA.

    What is percent-encoded already stays as it is. Raises ValueError for a host that cannot be one.
    """
    parts = urllib.parse.urlsplit(url.strip())
    user, at, place = parts.netloc.rpartition("@")
    host, colon, port = place.rpartition(":") if re.search(r":\d*$", place) else (place, "", "")
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    path, query = (urllib.parse.quote(part, safe=_KEPT) for part in (parts.path, parts.query))
    return urllib.parse.urlunsplit((parts.scheme, f"{user}{at}{host}{colon}{port}", path, query, ""))


def _get(url: str, deadline: float, timeout_s: float) -> bytes:
    request = urllib.request.Request(ascii_url(url), headers={"User-Agent": "siglip"})
    body = bytearray()
    with _web_only().open(request, timeout=timeout_s) as response:
        # read1 returns what has arrived; read would wait for a server that trickles
        while len(body) <= MAX_BYTES and (chunk := response.read1(2**16)):
            body += chunk
            if time.monotonic() > deadline:
                raise TimeoutError
    if len(body) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes; download it yourself and give the path")
    if response.length:  # what the server announced and did not send
        raise ValueError(f"the connection broke off after {len(body)} bytes; try again")
    return bytes(body)


def _web_only() -> urllib.request.OpenerDirector:
    """The usual opener of urllib also follows a redirection to ftp; this one knows http and https only."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _reason(error: Exception, timeout_s: float) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"the server answered {error.code} {error.reason}; check the address"
    if isinstance(error, TimeoutError):
        return f"no complete answer within {timeout_s:g} seconds; try again, or download it yourself and give the path"
    return str(error)
