"""One file -> its digest, and for each picture in it: the square for the tower, a thumbnail, and what EXIF tells."""

import hashlib
import io
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags
from PIL import Image as Pillow

from siglip.config import ImageSettings
from siglip.errors import UnreadableImage
from siglip.search.media import kind_of_media, stills
from siglip.search.schema import FileRow, Image

if TYPE_CHECKING:
    from siglip.processing.colour import Plain

THUMB_PX = 320
_MOST_BYTES = 2**29  # as the decoder
_CHANGED = "changed while it was read; the next `siglip index` reads it again"
_UNSET = "1970-01-01T00:00:00"  # what converters write who know no time
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture of a file, ready to be embedded; `thumb` is a WebP file."""

    image: Image
    square: UInt8[np.ndarray, "size size 3"]
    thumb: bytes


def read_file(path: str) -> tuple[FileRow, bytes]:
    """The bytes of a file and what the catalogue knows it by. Raises UnreadableImage, also if it changes meanwhile."""
    try:
        with Path(path).open("rb") as file:
            before = os.fstat(file.fileno())
            if before.st_size > _MOST_BYTES:
                raise UnreadableImage(path, f"holds {before.st_size} bytes, the limit is {_MOST_BYTES}")
            data = file.read(_MOST_BYTES + 1)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UnreadableImage(path, getattr(error, "strerror", None) or str(error)) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise UnreadableImage(path, _CHANGED)
    digest = hashlib.sha256(data).digest()
    return FileRow(os.fsencode(path), after.st_size, after.st_mtime_ns, digest), data


def hash_file(path: str) -> FileRow:
    """What the catalogue knows a file by, however large it is. Raises UnreadableImage, also if it changes meanwhile."""
    try:
        with Path(path).open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").digest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise UnreadableImage(path, error.strerror or str(error)) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UnreadableImage(path, _CHANGED)
    return FileRow(os.fsencode(path), after.st_size, after.st_mtime_ns, digest)


def pictures_in(data: bytes, digest: str, settings: ImageSettings) -> list[Picture]:
    """Decode a picture file. JPEGs much larger than needed are decoded at a fraction of their size.

    Raises UnreadableImage.
    """
    return [_prepared(data, described(data, digest), settings)]


def pictures_of_media(path: str, row: FileRow, kind: str, settings: ImageSettings) -> list[Picture]:
    """Decode a film or camera raw file that was hashed just before. Raises UnreadableImage, also if it changed."""
    found = [
        _prepared(still.picture, replace(described(still.jpeg, row.digest.hex()), frame=frame, **still.facts), settings)
        for frame, still in enumerate(stills(path, kind))
    ]
    with suppress(OSError):
        status = Path(path).stat()
        if (status.st_size, status.st_mtime_ns) == (row.size, row.mtime_ns):
            return found
    raise UnreadableImage(path, _CHANGED)


def _prepared(source: bytes | Pillow.Image, image: Image, settings: ImageSettings) -> Picture:
    from siglip.processing.decode import decode_picture  # imports torch, which finding needs not

    size = settings.image_size
    stored = decode_picture(source, at_least_px=max(2 * size, THUMB_PX)).plain
    square = stored.picture.resize((size, size), Pillow.Resampling[settings.resample.upper()])
    return Picture(image, np.array(stored._replace(picture=square).rgb()), _thumb(stored))


def thumbnail_of(path: str, digest: str, frame: int) -> bytes | None:
    """A WebP thumbnail of a file, None if it is another one than that of the digest. Raises UnreadableImage."""
    from siglip.processing.decode import decode_picture

    kind = kind_of_media(path)
    if kind is not None:
        found = stills(path, kind) if hash_file(path).digest.hex() == digest else []
        return _thumb(decode_picture(found[frame].picture).plain) if frame < len(found) else None
    row, data = read_file(path)
    return _thumb(decode_picture(data, at_least_px=THUMB_PX).plain) if row.digest.hex() == digest else None


def _thumb(stored: "Plain") -> bytes:
    small = stored.picture.copy()
    small.thumbnail((THUMB_PX, THUMB_PX), Pillow.Resampling.BICUBIC, reducing_gap=2.0)
    return _webp(stored._replace(picture=small).rgb())


def _webp(picture: Pillow.Image) -> bytes:
    picture.info.clear()  # no profile, place or camera goes into thumbnails
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=75, method=1)
    return buffer.getvalue()


def described(data: bytes, digest: str) -> Image:
    """Format, upright size, and from EXIF when, where and with what it was taken; nothing where that is damaged."""
    from siglip.processing.decode import open_header, silence

    facts: dict[str, Any] = {}
    with silence(), suppress(Exception), open_header(io.BytesIO(data), data[:32]) as picture:
        facts = {"format": picture.format, "width": picture.width, "height": picture.height}
        exif = picture.getexif()
        if exif.get(ExifTags.Base.Orientation) in _TURNED:
            facts.update(width=picture.height, height=picture.width)
        facts["camera"] = _camera(exif)
        facts["taken"] = _taken(exif)
        facts["latitude"], facts["longitude"] = _place(exif)
    return Image(digest=digest, **facts)


def _camera(exif: Pillow.Exif) -> str | None:
    make, model = (_text(exif.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    if make and model and not model.lower().startswith(make.lower()):
        return f"{make} {model}"
    return model or make or None


def _taken(exif: Pillow.Exif) -> str | None:
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    for value in (
        inner.get(ExifTags.Base.DateTimeOriginal),
        inner.get(ExifTags.Base.DateTimeDigitized),
        exif.get(ExifTags.Base.DateTime),
    ):
        date, _, time = _text(value).partition(" ")
        written = f"{date.replace(':', '-')}T{time[:8]}"
        digits = written.replace("-", "").replace("T", "").replace(":", "")
        if len(written) == 19 and digits.isdigit() and date[:4] > "1800" and written != _UNSET:
            return written
    return None


def _place(exif: Pillow.Exif) -> tuple[float | None, float | None]:
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    found: list[float | None] = []
    for value, side, negative, limit in (
        (ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S", 90),
        (ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W", 180),
    ):
        degrees = None
        with suppress(TypeError, ValueError, ZeroDivisionError):
            parts = [float(part) for part in gps[value]] if value in gps else []
            if len(parts) == 3:
                degrees = parts[0] + parts[1] / 60 + parts[2] / 3600
                degrees = round(-degrees if _text(gps.get(side)).upper() == negative else degrees, 6)
        found.append(degrees if degrees is not None and abs(degrees) <= limit else None)
    return (found[0], found[1]) if None not in found else (None, None)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore")
    return value.replace("\0", "").strip()[:200] if isinstance(value, str) else ""
