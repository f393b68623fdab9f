"""Films and camera raw files -> pictures to be embedded: frames spread over a film, the preview of a raw file.

Both need libraries of the `media` extra; without them such files are counted and passed over.
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, ImageOps
from PIL import Image as Pillow

from siglip.errors import UnreadableImage, clip
from siglip.pictures import RAW_SUFFIXES

_FILMS = ".3gp .avi .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .ogv .webm .wmv"
FILM_SUFFIXES = frozenset(_FILMS.split())
_NEEDS = {"film": "av", "camera raw": "rawpy"}
_FEWEST, _MOST, _EVERY_S = 4, 16, 10.0
_LONGEST_PX = 1024
# a frame is black if no spot of it, in this many pixels a side and of 255, is brighter
_SPOTS_PX, _BLACK = 16, 40


class Still(NamedTuple):
    """An upright picture of a film or raw file, what is known of it, and the JPEG file it was, if it was one."""

    picture: Pillow.Image
    facts: dict[str, Any]
    jpeg: bytes = b""


def kind_of_media(path: str) -> str | None:
    """By the suffix of a file "film" or "camera raw", None for all others."""
    suffix = Path(path).suffix.lower()
    return "film" if suffix in FILM_SUFFIXES else "camera raw" if suffix in RAW_SUFFIXES else None


def can_read(kind: str) -> bool:
    """Whether what reads this kind is installed."""
    return find_spec(_NEEDS[kind]) is not None


def stills(path: str, kind: str) -> list[Still]:
    """The pictures of a file. Raises UnreadableImage, and nothing else, for whatever is wrong with it."""
    try:
        found = list(_frames(path)) if kind == "film" else [_preview(path)]
    except Exception as error:  # the decoders of hundreds of formats raise what they like
        raise UnreadableImage(path, f"cannot be decoded ({type(error).__name__}: {clip(str(error))})") from error
    if not found:
        raise UnreadableImage(path, "holds no frame that is not black")
    return found


def _frames(path: str) -> Iterator[Still]:
    """Of each of some equal parts of a film, one for ten seconds, a frame from its middle that is not black.

    It is the key frame before the middle where that lies in the part, since others cost all frames from there on.
    """
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        length_s = (container.duration or 0) / 1e6
        start_s = (container.start_time or 0) / 1e6
        count = min(max(int(length_s / _EVERY_S), _FEWEST), _MOST) if length_s else 1
        facts = {"format": Path(path).suffix[1:].upper(), "taken": _taken(container.metadata)}
        for part in range(count):
            begin, end = (start_s + length_s * edge / count for edge in (part, part + 1))
            if length_s:
                container.seek(int((begin + end) / 2 * 1e6))
            for frame in container.decode(stream):
                at = frame.time or 0.0
                if length_s and at >= end:
                    break
                if at < begin - 1e-6 or _is_black(frame):
                    continue
                shrunk = min(1.0, _LONGEST_PX / max(frame.width, frame.height))
                picture = frame.reformat(
                    width=max(1, round(frame.width * shrunk)), height=max(1, round(frame.height * shrunk))
                ).to_image()
                width, height = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
                upright = picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
                seconds = round(at - start_s, 3)
                yield Still(upright, {**facts, "seconds": seconds, "width": width, "height": height})
                break


def _is_black(frame: Any) -> bool:
    spots = frame.reformat(width=_SPOTS_PX, height=_SPOTS_PX, format="gray").to_ndarray()
    return int(spots.max()) < _BLACK


def _taken(metadata: dict[str, str]) -> str | None:
    """Films tell the time in UTC; as all others, it is kept as local time."""
    with suppress(ValueError, OSError, OverflowError):
        when = datetime.fromisoformat(metadata.get("creation_time", ""))
        if when.year > 1970:  # what stands there if nobody set it
            return when.astimezone().replace(tzinfo=None).isoformat(timespec="seconds")
    return None


def _preview(path: str) -> Still:
    """The picture that the camera put into a raw file; developed from the sensor's values where there is none."""
    import rawpy

    with rawpy.imread(path) as raw:
        turned = raw.sizes.flip in (5, 6)
        sides = (raw.sizes.height, raw.sizes.width) if turned else (raw.sizes.width, raw.sizes.height)
        facts: dict[str, Any] = {"format": Path(path).suffix[1:].upper(), "width": sides[0], "height": sides[1]}
        try:
            thumb = raw.extract_thumb()
        except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
            # turns by itself
            return Still(Pillow.fromarray(raw.postprocess(use_camera_wb=True, half_size=True)), facts)
        jpeg = bytes(thumb.data) if thumb.format == rawpy.ThumbFormat.JPEG else b""
        picture = Pillow.open(io.BytesIO(jpeg), formats=["JPEG"]) if jpeg else Pillow.fromarray(np.asarray(thumb.data))
        if picture.getexif().get(ExifTags.Base.Orientation) is not None:
            picture = ImageOps.exif_transpose(picture)
        elif degrees := {3: 180, 5: 90, 6: 270}.get(raw.sizes.flip):
            picture = picture.rotate(degrees, expand=True)
        picture.load()
        return Still(picture, facts, jpeg)
