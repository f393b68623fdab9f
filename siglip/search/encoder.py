"""Words and pictures -> unit vectors in a library's space. What is known already needs no model, and no torch."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from siglip.errors import InputError, LibraryError, UnreadableImage
from siglip.search.reading import read_file
from siglip.search.schema import Space, seal
from siglip.search.searching import Searcher

if TYPE_CHECKING:
    from siglip.embedder import Embedder


class Encoder:
    """A model, loaded when it is first needed. `model` is an Embedder, the name of one, or None for the library's own.

    `name` is what the catalogue calls it. Used from any thread.
    """

    def __init__(self, model: "str | Embedder | None", *, device: str, dtype: str, batch_size: int) -> None:
        self.model = model
        self.name = _name(model)
        self.loaded: Embedder | None = None if isinstance(model, str | None) else model
        self._device, self._dtype, self._batch_size = device, dtype, batch_size
        self._lock = threading.Lock()

    def embedder(self) -> "Embedder":
        """The model, loaded now if it was not."""
        with self._lock:
            if self.loaded is None:
                from siglip.embedder import Embedder

                self.loaded = Embedder.from_pretrained(
                    self.name, device=self._device, dtype=self._dtype, batch_size=self._batch_size
                )
            return self.loaded

    def embedder_of(self, space: Space) -> "Embedder":
        """The model, if it is the one whose vectors a space holds. Raises LibraryError if it is another one."""
        embedder = self.embedder()
        if embedder.fingerprint != space.fingerprint:
            raise LibraryError(
                f"the library answers with the model {space.model} of fingerprint {space.fingerprint[:12]}, and the "
                f"model {self.name} has {embedder.fingerprint[:12]}; `siglip index --model {self.name}` brings the "
                "library to it, while the old vectors keep answering"
            )
        return embedder

    def texts(self, searcher: Searcher, texts: Sequence[str]) -> dict[str, Float32[np.ndarray, " dim"]]:
        """Unit vectors of texts; new ones are kept in the catalogue. Raises InputError for what is no text."""
        space = searcher.state()[0]
        wanted = list(dict.fromkeys(texts))
        found = self._kept(searcher, space, wanted)
        missing = [text for text in wanted if text not in found]
        if missing:
            embedded = self.embedder_of(space).embed_texts(missing)
            if embedded.failures:
                failure = embedded.failures[0]
                raise InputError(f"{failure.name} cannot be searched for: {failure.reason}")
            new = dict(zip(missing, embedded.vectors, strict=True))
            self._keep(searcher, space, new)
            found.update(new)
        return found

    def picture(self, searcher: Searcher, path: str) -> tuple[str | None, Float32[np.ndarray, " dim"]]:
        """The digest of a picture file (None for a URL) and its vector. Raises UnreadableImage."""
        space = searcher.state()[0]
        if path.lower().startswith(("http://", "https://")):
            return None, self._embedded(space, path, path)
        row, data = read_file(str(Path(path).expanduser()))
        digest = row.digest.hex()
        known = searcher.vector_of(row.digest)
        if known is not None:
            return digest, known
        name = f"sha256:{digest}"
        kept = self._kept(searcher, space, [name])
        if name not in kept:
            kept = {name: self._embedded(space, data, path)}
            self._keep(searcher, space, kept)
        return digest, kept[name]

    def _embedded(self, space: Space, picture: str | bytes, name: str) -> Float32[np.ndarray, " dim"]:
        embedded = self.embedder_of(space).embed_images([picture])
        if embedded.failures:
            raise UnreadableImage(name, embedded.failures[0].reason)
        return embedded.vectors[0]

    def _kept(self, searcher: Searcher, space: Space, texts: Sequence[str]) -> dict[str, Float32[np.ndarray, " dim"]]:
        statement = "SELECT text, vector, seal FROM query WHERE space = ? AND text IN KEYS"
        rows = searcher.catalogue.rows_for(statement, texts, (space.id,))
        return {
            text: np.frombuffer(data, "<f4")
            for text, data, stored in rows
            if seal(text, data) == stored and len(data) == 4 * space.dim
        }

    def _keep(self, searcher: Searcher, space: Space, vectors: dict[str, Float32[np.ndarray, " dim"]]) -> None:
        rows = [(text, vector.astype("<f4").tobytes()) for text, vector in vectors.items()]
        # a library that cannot be written, or is being written, answers all the same
        with suppress(LibraryError, OSError), searcher.catalogue.writing():
            searcher.catalogue.write(
                "INSERT OR REPLACE INTO query VALUES (?, ?, ?, ?)",
                [(space.id, text, data, seal(text, data)) for text, data in rows],
            )


def _name(model: "str | Embedder | None") -> str:
    if not isinstance(model, str):
        return "nano" if model is None else "(an Embedder)"
    # a folder is named so that it is found from anywhere
    return str(Path(model).expanduser().absolute()) if model != "nano" and Path(model).expanduser().exists() else model
