"""How fast is one query over 100,000 vectors, and how much does it find, against comparing all of them?

The vectors are synthetic, 768 wide: clusters of pictures around an offset of their own, and texts around another one,
nearly at right angles to it, as SigLIP has them; such texts are what partial indexes miss. Recall is told for texts and
for pictures apart. A turn is 20 queries one after another. FAISS's flat index takes part if it is installed.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.harness import Contestant, Row, arguments, compare, publish, race, timed
from siglip.search.vectors import Vectors, append, build_codes, enough_rescored, load_codes

DIM = 768
QUERIES = 20


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def synthetic(count: int, queries: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, and queries by texts and by pictures."""
    rng = np.random.default_rng(0)
    spectrum = (np.arange(1, DIM + 1) ** -0.4).astype(np.float32)
    concepts = rng.normal(size=(2_000, DIM)).astype(np.float32) * spectrum
    offsets = unit(rng.normal(size=(2, DIM)).astype(np.float32)) * np.linalg.norm(spectrum) * 1.2
    popular = 1 / np.arange(1, len(concepts) + 1)

    def drawn(rows: int, offset: np.ndarray, private: float) -> np.ndarray:
        meant = rng.choice(len(concepts), rows, p=popular / popular.sum())
        noise = rng.normal(size=(rows, DIM)).astype(np.float32) * spectrum
        return unit(offset + 0.6 * concepts[meant] + private * noise)

    return drawn(count, offsets[0], 0.8), drawn(queries, offsets[1], 0.5), drawn(queries, offsets[0], 0.8)


def recall(true: list[Any], found: list[Any], depth: int) -> float:
    return float(np.mean([np.isin(a[:depth], b[:depth]).mean() for (a, _), (b, _) in zip(true, found, strict=True)]))


def measure(count: int, rounds: int, folder: Path) -> tuple[list[Row], dict[str, Any]]:
    pictures, texts, looks = synthetic(count, 200)
    path = folder / "vectors.f16"
    append(path, 0, pictures)
    plain = Vectors(path, DIM, count)
    crc: list[int] = []
    built = timed(lambda: crc.append(build_codes(plain, folder / "codes.tv")[1]))
    vectors = Vectors(path, DIM, count, codes=load_codes(folder / "codes.tv", count, crc[0]))
    vectors.rescored, _ = enough_rescored(vectors, [texts[:100], looks[:100]])
    facts: dict[str, Any] = {
        "vectors": f"{count} x {DIM}",
        "codes built in CPU-seconds": round(built.cpu_s, 2),
        "codes MB": round((folder / "codes.tv").stat().st_size / 1e6, 1),
        "compared exactly": vectors.rescored,
    }
    # measured on queries that took no part in choosing how many are compared exactly
    for name, queries in (("text", texts[100:]), ("picture", looks[100:])):
        true, found = plain.exact(queries, 100), vectors.nearest(queries, 100)
        facts[f"{name} recall@10, @100"] = (recall(true, found, 10), recall(true, found, 100))
    asked = texts[:QUERIES]

    def numpy_exact() -> None:
        for query in asked:
            np.argpartition(pictures @ query, count - 100)

    def ours() -> None:
        for query in asked:
            vectors.nearest(query[None], 100)

    contestants: dict[str, Contestant] = {"numpy float32 in memory": numpy_exact, "ours": ours}
    if find_spec("faiss"):
        import faiss

        flat = faiss.IndexFlatIP(DIM)
        flat.add(pictures)
        contestants["FAISS flat"] = lambda: [flat.search(query[None], 100) for query in asked]
    timings = race(contestants, rounds=rounds)
    facts["CPU-ms a query"] = round(1000 * fmean(timing.cpu_s for timing in timings["ours"]) / QUERIES, 2)
    rows = [
        compare(f"{QUERIES} queries", timings, peer=peer, ours="ours", goal=1.0)
        for peer in contestants
        if peer != "ours"
    ]
    return rows, facts


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    with tempfile.TemporaryDirectory() as folder:
        rows, facts = measure(
            22_000 if options.quick else 100_000, options.rounds or (1 if options.quick else 7), Path(folder)
        )
    question = "One query over 100,000 vectors"
    publish(question, rows, facts, quick=options.quick)


if __name__ == "__main__":
    main()
