"""A web address that a stranger named -> the bytes behind it, from public places only.

A name is looked up once; every address it has must be public, and the connection goes to an address that was checked,
so that a name which answers differently a moment later gains nothing. Redirections are checked like the first address.
Nothing of what a server answers is told, except the bytes of a whole file.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from functools import cache

import h11

from siglip.download import ascii_url, is_url
from siglip.errors import UnreadableImage

MAX_BYTES = 2**25
TIMEOUT_S = 10.0
_MOST_REDIRECTS = 3
_MOST_AT_ONCE = 8
_CONNECT_S = 3.0
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")

_UNICAST = ipaddress.ip_network("2000::/3")
# within what is unicast: tunnels (6to4, Teredo and other assignments of 2001::/23) and documentation
_TUNNELS = [ipaddress.ip_network(block) for block in ("2002::/16", "2001::/23", "2001:db8::/32", "3fff::/20")]
# the relay of 6to4, protocol assignments, and where a cloud tells its guests their secrets at a public address
_NOT_V4 = [ipaddress.ip_network(block) for block in ("192.88.99.0/24", "192.0.0.0/24", "168.63.129.16/32")]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# host and port -> addresses
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
# address, port and the name for TLS, if it is wanted -> the connection
Connect = Callable[[str, int, str | None], Awaitable[Streams]]


class _Odd(Exception):
    """Why an address is not fetched; the words may be told."""


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet and to no tunnel, translation or private use of any kind."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        # ::ffff:0:0/96, 64:ff9b::/96 and all private blocks lie outside of 2000::/3
        return parsed.scope_id is None and parsed in _UNICAST and not any(parsed in block for block in _TUNNELS)
    special = parsed.is_multicast or parsed.is_reserved or any(parsed in block for block in _NOT_V4)
    return parsed.is_global and not special


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as the system finds them; none for a name that is not known."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return [str(place[0]) for *_, place in found]


async def connect(address: str, port: int, name: str | None) -> Streams:
    """A connection to an address, with TLS for `name`; no proxy is asked. Raises OSError."""
    secure = None if name is None else _trusted()
    return await asyncio.open_connection(address, port, ssl=secure, server_hostname=name)


_trusted = cache(ssl.create_default_context)


class Fetcher:
    """Fetches what strangers name, at most 8 at a time, 32 MB and 10 seconds each."""

    def __init__(self, *, resolve: Resolve = resolve, connect: Connect = connect) -> None:
        self._resolve, self._connect = resolve, connect
        self._turn = asyncio.Semaphore(_MOST_AT_ONCE)

    async def fetch(self, url: str) -> bytes:
        """The file at an http(s) address. Raises UnreadableImage."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._turn:
                for _ in range(_MOST_REDIRECTS + 1):
                    answer = await self._ask(url)
                    if isinstance(answer, bytes):
                        return answer
                    url = urllib.parse.urljoin(url, answer)
                raise _Odd(f"is redirected more than {_MOST_REDIRECTS} times")
        except _Odd as error:
            raise UnreadableImage("image", str(error)) from error
        except (OSError, ValueError, h11.RemoteProtocolError, h11.LocalProtocolError) as error:
            # also what takes too long: TimeoutError is an OSError
            raise UnreadableImage("image", "cannot be fetched from its address") from error

    async def _ask(self, url: str) -> bytes | str:
        """The file, or where it is to be found instead."""
        host, port, target, secure = _parts(url)
        addresses = list(dict.fromkeys(await self._resolve(host, port)))
        # a name without addresses is answered like a private one: which names exist inside is nobody's business
        if not addresses or not all(map(is_public, addresses)):
            raise _Odd("has an address that is not public")
        reader, writer = await self._connected(addresses, port, host.rstrip(".") if secure else None)
        try:
            bare = port == _PORTS["https" if secure else "http"]
            shown = f"[{host}]" if ":" in host else host
            return await _exchanged(reader, writer, shown if bare else f"{shown}:{port}", target)
        finally:
            writer.transport.abort()

    async def _connected(self, addresses: Sequence[str], port: int, name: str | None) -> Streams:
        """To the first of the checked addresses that takes the connection."""
        for address in addresses:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    return await self._connect(address, port, name)
            except OSError:
                continue
        raise OSError("no address took the connection")


def _parts(url: str) -> tuple[str, int, str, bool]:
    """Host, port and target of an address, and whether TLS is wanted. Raises _Odd, and ValueError for a damaged one."""
    if not is_url(url) or len(url) > 8192:
        raise _Odd("must be at an http:// or https:// address of at most 8192 characters")
    parts = urllib.parse.urlsplit(ascii_url(url))
    host = parts.hostname or ""
    port = parts.port if parts.port is not None else _PORTS[parts.scheme]
    if port not in _PORTS.values():
        raise _Odd("must be at port 80 or 443")
    if parts.username is not None or parts.password is not None:
        raise _Odd("has an address with a name or password in it")
    if not _HOST.fullmatch(host) and ":" not in host:
        raise _Odd("has an address whose host is no name")
    return host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), parts.scheme == "https"


async def _exchanged(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, target: str) -> bytes | str:
    """GET -> the body, or the address of a redirection. Raises _Odd, OSError and what h11 raises."""
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", host), ("User-Agent", "siglip"), ("Accept-Encoding", "identity"), ("Connection", "close")]
    request = connection.send(h11.Request(method="GET", target=target, headers=headers))
    writer.write((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(2**16))
        elif isinstance(event, h11.Response):
            told = {name: value.decode("latin-1") for name, value in event.headers}
            if event.status_code in _REDIRECTS and b"location" in told:
                return told[b"location"]
            if event.status_code != 200:
                raise OSError("not there")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BYTES:
                raise _Odd(f"is larger than {MAX_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
