"""What a client names a picture by -> the bytes of its file: a data URI, or `id:` and the id of a library's picture."""

from starlette.concurrency import run_in_threadpool

from siglip.download import is_data_uri
from siglip.errors import UnreadableImage, clip
from siglip.search import Library
from siglip.search.browsing import original

_ID = "id:"


class Sources:
    """Where pictures come from. No path is ever taken from a client, and no address is fetched."""

    def __init__(self, library: Library | None = None) -> None:
        self._library = library

    def problem(self, name: str) -> str | None:
        """Why there is no such picture, as far as its name tells."""
        if is_data_uri(name):
            return None
        if name.startswith(_ID):
            return None if self._library is not None else "names a picture of a library, and this service has none"
        known = "a data URI" if self._library is None else "a data URI, or id: and the id of a picture of the library"
        return f"a picture must be {known}, got {clip(name)}; this service fetches no addresses and opens no paths"

    async def content(self, name: str) -> str | bytes:
        """The data URI itself, or the file's bytes. Raises UnreadableImage."""
        if is_data_uri(name):
            return name
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
