"""How fast is one query over many vectors, and how much does it find, against comparing all of them?

The vectors are synthetic, 768 wide: clusters of pictures around an offset of their own, and texts around another one,
nearly at right angles to it, as SigLIP has them; such texts are what partial indexes miss. Recall and processor time
are told for texts and for pictures apart. They lie in a real library, which is also opened by fresh processes. A turn
is 20 queries one after another, or 16 at once. FAISS's flat index takes part if it is installed.

--rclip PYTHON, the interpreter of an environment that holds rclip, compares with its search: both over the same number
of vectors, of its width 512 there, files cached, and with the text's vector given, so that no model takes part.

--rows 1000000 takes 8 GB of memory, 2.5 GB of disk and some minutes.

A folder of as many files, at most 100,000, in which nothing changed is indexed again, against find printing the size
and time of each; the start of Python and the package is not counted.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.harness import Contestant, Row, Timing, compare, parser_of, publish, race, timed
from siglip.search import Library
from siglip.search.catalogue import Catalogue
from siglip.search.indexing import store
from siglip.search.null import Gumbel, Null
from siglip.search.schema import FileRow, Image, seal
from siglip.search.searching import codes_file
from siglip.search.vectors import Vectors, build_codes, enough_rescored, load_codes

DIM = 768
QUERIES = 20
BATCH = 16
AT_ONCE = 25_000
KNOWN = "a known text"
ANSWER = f"""
import sys, time
from siglip.search import Library
started = time.perf_counter()
with Library.open(sys.argv[1]) as library:
    assert library.search({KNOWN!r}) and "torch" not in sys.modules
    print(time.perf_counter() - started)
    started = time.perf_counter()
    for _ in range(20):
        library.search({KNOWN!r}, top=10)
    print((time.perf_counter() - started) / 20)
"""
RCLIP = """
import sys, time
import numpy as np
from rclip import db, main, model
base, rows, dim = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if sys.argv[4:]:
    vectors = np.fromfile(sys.argv[4], "<f2").reshape(rows, dim)[:, :512].astype(np.float32)
    database = db.DB(base)
    for number, vector in enumerate(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)):
        path = f"/home/user/Pictures/2024/05/IMG_{number:07}.jpg"
        database.upsert_image(
            db.NewImage(filepath=path, modified_at=1.0, size=3_000_000, vector=vector.tobytes(), hash=str(number)),
            commit=False)
    database.close()
model.Model.compute_text_features = lambda self, text: np.full((len(text), 512), 512 ** -0.5, np.float32)
started = time.perf_counter()
searcher = main.RClip(model.Model(), db.DB(base), 8, None)
assert len(searcher.search("x", "/home/user/Pictures")) == 10
print(time.perf_counter() - started)
started = time.perf_counter()
for _ in range(5):
    searcher.search("x", "/home/user/Pictures")
print((time.perf_counter() - started) / 5)
"""
Drawn = Callable[[int], np.ndarray]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def synthetic() -> tuple[Drawn, Drawn]:
    """What draws pictures, and what draws texts."""
    rng = np.random.default_rng(0)
    spectrum = (np.arange(1, DIM + 1) ** -0.4).astype(np.float32)
    concepts = rng.normal(size=(2_000, DIM)).astype(np.float32) * spectrum
    offsets = unit(rng.normal(size=(2, DIM)).astype(np.float32)) * np.linalg.norm(spectrum) * 1.2
    popular = 1 / np.arange(1, len(concepts) + 1)

    def drawn(rows: int, offset: np.ndarray, private: float) -> np.ndarray:
        meant = rng.choice(len(concepts), rows, p=popular / popular.sum())
        noise = rng.standard_normal(size=(rows, DIM), dtype=np.float32) * spectrum
        return unit(offset + 0.6 * concepts[meant] + private * noise)

    return lambda count: drawn(count, offsets[0], 0.8), lambda count: drawn(count, offsets[1], 0.5)


def unchanged(folder: Path, count: int, rounds: int) -> Row:
    """Indexing again, against find, over a tree in which nothing changed; the files are empty, as none is read."""
    tree = folder / "tree"
    files: list[FileRow] = []
    for number in range(count):
        path = tree / f"{2000 + number // 4000}" / f"{number // 1000 % 4} holiday" / f"IMG_{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        digest = sha256(str(number).encode()).digest()
        files.append(FileRow(bytes(path), 0, path.stat().st_mtime_ns, digest))
    (folder / "library").mkdir()
    with Catalogue(folder / "library", create=True) as catalogue:
        with catalogue.writing():
            space = catalogue.add_space(fingerprint="0" * 64, model="synthetic", dim=8, scale=100.0, bias=-10.0)
            catalogue.set_meta("space", str(space.id))
            null = Null(Gumbel(0.0, 1.0), Gumbel(0.0, 1.0), 0.0, (0.0,) * 8)
            catalogue.set_meta(f"null-{space.id}", json.dumps({**asdict(null), "rows": count}))
        images = [Image(digest=file.digest.hex()) for file in files]
        store(catalogue, space, images, np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32), files)

    def again() -> None:
        with Library.open(folder / "library") as library:
            assert library.index([tree]).unchanged == count

    find = ["find", str(tree), "-printf", "%s %T@\n"]
    timings = race(
        {"find": lambda: subprocess.run(find, check=True, stdout=subprocess.DEVNULL), "ours": again}, rounds=rounds
    )
    return compare(f"{count} files, none changed", timings, peer="find", ours="ours", goal=0.5)


def filled(folder: Path, blocks: Iterable[np.ndarray], text: np.ndarray) -> None:
    """A library of pictures that are nowhere but have these vectors, each of them wider than 1000 pixels in a tenth."""
    with Catalogue(folder, create=True) as catalogue:
        with catalogue.writing():
            space = catalogue.add_space(fingerprint="0" * 64, model="synthetic", dim=DIM, scale=100.0, bias=-10.0)
            catalogue.set_meta("space", str(space.id))
        for block in blocks:
            numbers = range(space.rows, space.rows + len(block))
            digests = [sha256(str(number).encode()).digest() for number in numbers]
            images = [
                Image(digest=digest.hex(), format="JPEG", width=2000 if number % 10 == 0 else 1000, height=750,
                      taken="2024-05-31T18:20:00", camera="Canon EOS 80D")
                for number, digest in zip(numbers, digests, strict=True)
            ]  # fmt: skip
            files = [
                FileRow(f"/home/user/Pictures/2024/05/IMG_{number:07}.jpg".encode(), 3_000_000, number, digest)
                for number, digest in zip(numbers, digests, strict=True)
            ]
            space = store(catalogue, space, images, block, files)
        data = text.astype("<f4").tobytes()
        with catalogue.writing():
            catalogue.write("INSERT INTO query VALUES (?, ?, ?, ?)", [(space.id, KNOWN, data, seal(KNOWN, data))])
        catalogue.pack()
        catalogue.checkpoint()


def recall(true: list[Any], found: list[Any], depth: int) -> float:
    shares = [np.isin(a[:depth], b[:depth]).mean() for (a, _), (b, _) in zip(true, found, strict=True)]
    return round(float(np.mean(shares)), 4)


def cpu_ms(timings: dict[str, list[Any]], name: str, queries: int) -> float:
    return round(1000 * fmean(timing.cpu_s for timing in timings[name]) / queries, 1)


def races(vectors: Vectors, plain: Vectors, texts: np.ndarray, looks: np.ndarray, rounds: int) -> tuple[list[Row], Any]:
    """Ours against the others, and what is found by queries that took no part in choosing how many are rescored."""
    everything = np.asarray(plain.array, dtype=np.float32)
    flat: Any = None
    if find_spec("faiss"):
        import faiss

        flat = faiss.IndexFlatIP(DIM)
        flat.add(everything)
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    for name, queries in (("text", texts), ("picture", looks)):
        true, found = plain.exact(queries, 100), vectors.nearest(queries, 100)
        facts[f"{name} recall@10, @100"] = (recall(true, found, 10), recall(true, found, 100))
        for size, asked in ((1, queries[:QUERIES, None]), (BATCH, queries[None, :BATCH])):
            contestants: dict[str, Contestant] = {
                "numpy exact": lambda asked=asked: [np.argpartition(everything @ q.T, -100, axis=0) for q in asked],
                "ours": lambda asked=asked: [vectors.nearest(q, 100) for q in asked],
            }
            if flat is not None:
                contestants["FAISS flat"] = lambda asked=asked: [flat.search(q, 100) for q in asked]
            timings = race(contestants, rounds=rounds)
            number = asked.shape[0] * asked.shape[1]
            for peer in contestants:
                what = f"{number} {name}s, {size} at once; {peer}"
                facts[f"{name}, {size} at once, {peer}: CPU-ms, best wall ms a query"] = (
                    cpu_ms(timings, peer, number),
                    round(1000 * min(timing.wall_s for timing in timings[peer]) / number, 1),
                )
                if peer != "ours":
                    rows.append(compare(what, timings, peer=peer, ours="ours", goal=1.0))
    return rows, facts


def filters(vectors: Vectors, plain: Vectors, texts: np.ndarray) -> dict[str, Any]:
    """Recall and price of keeping a share of the rows."""
    facts: dict[str, Any] = {}
    for share in (1.0, 0.5, 0.1, 0.01, 0.001):
        kept = np.sort(np.random.default_rng(2).permutation(len(vectors))[: int(share * len(vectors))])
        among = kept if share < 1.0 else None
        found: list[Any] = []
        started = time.process_time()
        for query in texts[:QUERIES]:
            found += vectors.nearest(query[None], 100, among=among)
        spent = 1000 * (time.process_time() - started) / QUERIES
        true = plain.exact(texts[:QUERIES], 100, among=kept)
        assert all(len(rows) == min(100, len(kept)) for rows, _ in found)
        facts[f"{share:.1%} kept by a filter: recall@10, @100, CPU-ms"] = (
            recall(true, found, 10),
            recall(true, found, 100),
            round(spent, 1),
        )
    return facts


def asked(command: list[str]) -> tuple[float, float]:
    """Seconds that a fresh process takes for its first answer from opening on, and for each further one."""
    done = subprocess.run([*command], check=True, capture_output=True, text=True)
    first, further = map(float, done.stdout.split())
    return first, further


def opened(folder: Path, vectors: Path, count: int, rclip: Path | None) -> tuple[list[Row], dict[str, Any]]:
    """Fresh processes that ask a known text, the files cached, and rclip's if it is there."""
    ours = [sys.executable, "-c", ANSWER, str(folder)]
    theirs = [str(rclip), "-c", RCLIP, str(folder / "rclip.sqlite3"), str(count), str(DIM)]
    answered: dict[str, list[tuple[float, float]]] = {"ours": [], "rclip": []}
    if rclip is not None:
        asked([*theirs, str(vectors)])
    for _ in range(5):
        answered["ours"].append(asked(ours))
        if rclip is not None:
            answered["rclip"].append(asked(theirs))
    facts: dict[str, Any] = {
        "fresh process: open and answer, s": round(median(first for first, _ in answered["ours"]), 3)
    }
    rows: list[Row] = []
    if rclip is not None:
        for number, (what, goal) in enumerate((("the first answer of a process", 4.0), ("each further one", 50.0))):
            timings = {name: [Timing(pair[number], pair[number]) for pair in pairs] for name, pairs in answered.items()}
            rows.append(compare(what, timings, peer="rclip", ours="ours", goal=goal, cpu=False))
    with Library.open(folder) as library:
        library.search(KNOWN)
        for where in (None, "width > 1000"):
            spent: list[float] = []
            for _ in range(QUERIES):
                started = time.process_time()
                library.search(KNOWN, where=where)
                spent.append(1000 * (time.process_time() - started))
            name = f"library.search{f', where {where}' if where else ''}: CPU-ms, the first and the median"
            facts[name] = (round(spent[0], 1), round(median(spent), 1))
    return rows, facts


def measure(count: int, rounds: int, folder: Path, rclip: Path | None) -> tuple[list[Row], dict[str, Any]]:
    pictures, texts_of = synthetic()
    texts, looks = texts_of(200), pictures(200)
    filled(folder, (pictures(min(AT_ONCE, count - start)) for start in range(0, count, AT_ONCE)), texts[0])
    with Catalogue(folder) as catalogue:
        (space,) = catalogue.spaces()
        plain = Vectors(folder / space.vectors, DIM, count)
        kept = [path for path in folder.iterdir() if path.suffix in (".db", ".f16")]
        facts: dict[str, Any] = {
            "vectors": f"{count} x {DIM}",
            "truth: catalogue and vectors, MB": [round(path.stat().st_size / 1e6) for path in sorted(kept)],
        }
        crc: list[int] = []
        path = codes_file(folder, replace(space, codes_rows=count))
        facts["codes built in CPU-s"] = round(timed(lambda: crc.append(build_codes(plain, path)[1])).cpu_s, 1)
        facts["codes MB"] = round(path.stat().st_size / 1e6, 1)
        vectors = Vectors(folder / space.vectors, DIM, count, codes=load_codes(path, count, crc[0]))
        vectors.rescored, _ = enough_rescored(vectors, [texts[:100], looks[:100]])
        facts["compared exactly"] = vectors.rescored
        known = replace(space, codes_rows=count, codes_crc=crc[0], rescored=vectors.rescored)
        with catalogue.writing():
            catalogue.update_space(known)
    rows, found = races(vectors, plain, texts[100:], looks[100:], rounds)
    fresh, told = opened(folder, folder / space.vectors, count, rclip)
    return rows + fresh, facts | found | filters(vectors, plain, texts[100:]) | told


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, metavar="N", help="how many vectors (default: 100000)")
    parser.add_argument("--rclip", type=Path, metavar="PYTHON", help="an interpreter that has rclip")
    options = parser.parse_args(argv)
    count = 22_000 if options.quick else options.rows
    rounds = options.rounds or (1 if options.quick else 5)
    with tempfile.TemporaryDirectory() as folder:
        walked = unchanged(Path(folder), 1_000 if options.quick else min(100_000, count), rounds)
    with tempfile.TemporaryDirectory() as folder:
        rows, facts = measure(count, rounds, Path(folder), options.rclip)
    rows.append(walked)
    publish(f"One query over {count:,} vectors", rows, facts, quick=options.quick)


if __name__ == "__main__":
    main()
