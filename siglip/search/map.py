"""A library -> a page with its pictures on a plane, like beside like, in named groups; to be zoomed and moved."""

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from siglip.errors import InputError
from siglip.files import replacing
from siglip.search.library import Library
from siglip.search.null import names_of_things

# pictures on one map; of a larger library a random part is drawn
MOST = 4_000
_THUMB_PX = 96
_SHEET_ROWS = 16  # thumbnails a sheet has in a row and in a column
_PERPLEXITY = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """How many pictures are on the map, how many the library has, and the names of the groups, largest first."""

    pictures: int
    of: int
    groups: tuple[str, ...]


def write_map(library: Library, file: Path) -> Drawn:
    """Write the page. Raises InputError for fewer than three pictures, and without scikit-learn."""
    ids = library.image_ids()
    rows = np.flatnonzero(ids >= 0)
    images, _ = library.catalogue.images(ids[rows].tolist())
    # the first frame stands for a film
    rows = np.array([row for row in rows.tolist() if (image := images.get(int(ids[row]))) and image.frame == 0], int)
    total = len(rows)
    if total < 3:
        raise InputError(f"a map needs at least 3 pictures, this library has {total}; `siglip index FOLDER` adds some")
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST])
    vectors = library.vectors.take(rows)
    places = layout(vectors)
    found = library.encoder.texts(library.searcher, names_of_things())
    groups = grouped(vectors, np.stack([found[name] for name in names_of_things()]))
    shown = [images[int(ids[row])] for row in rows]
    paths, _ = library.catalogue.paths([image.digest for image in shown])
    pictures: list[dict[str, object]] = []
    for (x, y), image in zip(places.tolist(), shown, strict=True):
        path = Path(os.fsdecode(paths[image.digest][0]))
        name = os.fsencode(path.name).decode("utf-8", "replace")
        pictures.append({"x": round(x, 4), "y": round(y, 4), "path": name, "link": path.as_uri()})
    counts = np.bincount(groups)
    named = [name for name in np.argsort(-counts, kind="stable").tolist() if counts[name]]
    labels: list[dict[str, object]] = []
    for name in named:
        x, y = np.median(places[groups == name], axis=0).tolist()
        labels.append({"x": round(x, 4), "y": round(y, 4), "name": names_of_things()[name], "count": int(counts[name])})
    sheets = _sheets([library.thumbnail(image.digest) for image in shown])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    data = {"pictures": pictures, "labels": labels, "sheets": sheets, "px": _THUMB_PX, "rows": _SHEET_ROWS}
    page = environment.get_template("map.html").render(data=data, count=len(rows), total=total)
    with replacing(file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Drawn(pictures=len(rows), of=total, groups=tuple(names_of_things()[name] for name in named))


def layout(vectors: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n 2"]:
    """Places in [0, 1] x [0, 1] where neighbours stay neighbours: t-SNE (van der Maaten and Hinton 2008), seeded."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise InputError("a map needs scikit-learn; pip install 'siglip[map]'") from error
    perplexity = min(_PERPLEXITY, max(1.0, (len(vectors) - 1) / 3))
    placed = TSNE(2, perplexity=perplexity, init="random", random_state=0, n_jobs=1).fit_transform(vectors)
    placed -= placed.min(axis=0)
    return (placed / max(float(placed.max()), 1e-12)).astype(np.float32)


def grouped(vectors: Float32[np.ndarray, "n dim"], names: Float32[np.ndarray, "names dim"]) -> Int64[np.ndarray, " n"]:
    """The group of each picture, called by the row of a name: the one that fits its pictures more than all others.

    Groups are those of k-means; two that would have the same name are one.
    """
    from sklearn.cluster import KMeans

    count = int(np.clip(round((len(vectors) / 2) ** 0.5), 2, 24))
    member = KMeans(count, random_state=0).fit_predict(vectors)
    middle = vectors.mean(axis=0)
    means = np.stack(
        [vectors[member == group].mean(axis=0) if (member == group).any() else middle for group in range(count)]
    )
    best = ((means - middle) @ names.T).argmax(axis=1)
    return best[member].astype(np.int64)


def _sheets(thumbs: list[bytes | None]) -> list[str]:
    """Thumbnails in squares side by side, as few WebP files with transparent edges."""
    sheets: list[str] = []
    step = _SHEET_ROWS**2
    for start in range(0, len(thumbs), step):
        sheet = Image.new("RGBA", (_SHEET_ROWS * _THUMB_PX, _SHEET_ROWS * _THUMB_PX))
        for index, thumb in enumerate(thumbs[start : start + step]):
            if thumb is None:
                continue
            with Image.open(io.BytesIO(thumb), formats=["WEBP"]) as picture:
                small = picture.convert("RGB")
            small.thumbnail((_THUMB_PX, _THUMB_PX))
            row, column = divmod(index, _SHEET_ROWS)
            left, top = ((_THUMB_PX - side) // 2 for side in small.size)
            sheet.paste(small, (column * _THUMB_PX + left, row * _THUMB_PX + top))
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", quality=75, method=2)
        sheets.append("data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode())
    return sheets
