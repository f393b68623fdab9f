"""What a client names a picture by -> its file: a data URI, `id:` and an id of the library, an address if allowed."""

from starlette.concurrency import run_in_threadpool

from siglip.download import is_data_uri, is_url
from siglip.errors import UnreadableImage, clip
from siglip.search import Library
from siglip.search.browsing import original
from siglip.server.fetching import Fetcher

_ID = "id:"


class Sources:
    """Where pictures come from. No path is ever taken from a client; addresses are only with a `fetcher`."""

    def __init__(self, library: Library | None = None, fetcher: Fetcher | None = None) -> None:
        self._library, self._fetcher = library, fetcher

    def problem(self, name: str) -> str | None:
        """Why there is no such picture, as far as its name tells."""
        if is_data_uri(name):
            return None
        if is_url(name) and self._fetcher is not None:
            return None
        if name.startswith(_ID):
            return None if self._library is not None else "names a picture of a library, and this service has none"
        known = ["a data URI"]
        known += ["id: and the id of a picture of the library"] if self._library is not None else []
        known += ["an http(s) address"] if self._fetcher is not None else []
        never = "opens no paths" if self._fetcher is not None else "fetches no addresses and opens no paths"
        return f"a picture must be {' or '.join(known)}, got {clip(name)}; this service {never}"

    async def content(self, name: str) -> str | bytes:
        """The data URI itself, or the file's bytes. Raises UnreadableImage."""
        if is_data_uri(name):
            return name
        if self._fetcher is not None and is_url(name):
            return await self._fetcher.fetch(name)
        return await run_in_threadpool(self._of_library, name.removeprefix(_ID))

    def _of_library(self, digest: str) -> bytes:
        assert self._library is not None, "problem() was asked first"
        found = original(self._library, digest.lower()) if _is_hex(digest) else None
        if found is None:
            raise UnreadableImage("image", "no file of the library has this id now")
        return found[1]


def _is_hex(text: str) -> bool:
    try:
        return bool(bytes.fromhex(text))
    except ValueError:
        return False
