"""`python -m tests.search.kills COUNT FOLDER`: kill -9 while indexing, at random moments, and see what is left.

Codes are built from 30 rows on, so that kills meet their files too. torch is imported once and forked for each run.
Prints JSON: kills that met a run, embeddings computed, pictures, size of a batch, and whether the library equals one
that was never interrupted.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from siglip.embedder import Embedder
from siglip.search import Library, searching, upkeep, vectors
from tests.search.conftest import draw

BATCH = 4
Answers = list[tuple[str, tuple[str, ...], float]]


class _Counting(Embedder):
    """Notes each picture that went through the tower in a file, which outlives the process."""

    tally: Path

    def encode_pixels(self, pixels: Any) -> Any:
        with self.tally.open("ab", buffering=0) as file:
            file.write(b"." * len(pixels))
        return super().encode_pixels(pixels)


def main(count: int, folder: Path) -> dict[str, object]:
    torch.set_num_threads(1)
    for module in (vectors, upkeep, searching):
        module.EXACT_ROWS = 30
    vectors.FEW_ROWS = 30
    embedder = _Counting.from_pretrained("nano", device="cpu", dtype="float32", batch_size=BATCH)
    assert embedder.fingerprint
    rng = random.Random(count)
    photos = folder / "photos"
    number, met, took = 0, 0, 0.5
    for _ in range(count):
        for _ in range(12):
            draw(photos / f"{number}.png", number)
            number += 1
        wait = rng.uniform(0, 1.2 * took)
        started = time.monotonic()
        child = _forked(embedder, folder / "killed", folder / "tally")
        while time.monotonic() - started < wait and not _ended(child):
            time.sleep(0.002)
        if _ended(child):
            took = time.monotonic() - started
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            met += 1
        _ENDED.discard(child)
    child = _forked(embedder, folder / "killed", folder / "tally")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    computed = (folder / "tally").stat().st_size
    return {
        "kills": met, "embedded": computed, "pictures": number, "batch": BATCH,
        "equal": _answers(embedder, folder / "killed", None) == _answers(embedder, folder / "whole", photos),
        "files": sorted(path.name for path in (folder / "killed").iterdir()),
    }  # fmt: skip


_ENDED: set[int] = set()


def _ended(child: int) -> bool:
    if child not in _ENDED and os.waitpid(child, os.WNOHANG)[0]:
        _ENDED.add(child)
    return child in _ENDED


def _forked(embedder: _Counting, library: Path, tally: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            embedder.tally = tally
            with Library.open(library, model=embedder) as opened:
                opened.index([tally.parent / "photos"])
            code = 0
        finally:
            os._exit(code)
    return child


def _answers(embedder: _Counting, folder: Path, photos: Path | None) -> Answers:
    embedder.tally = folder.with_name("tally of the comparison")
    with Library.open(folder, model=embedder) as library:
        if photos is not None:
            library.index([photos])
        assert library.check() == ([], [])
        hits = library.search("blocks", top=100_000)
        return [(hit.digest, hit.paths, round(hit.score, 3)) for hit in sorted(hits, key=lambda hit: hit.digest)]


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), Path(sys.argv[2]))))
