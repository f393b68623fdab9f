"""One picture in any form a caller may hold -> DecodedPicture: upright, sRGB, opaque, with what its file says.

Decoding is PIL's; this file decides what a picture means where PIL and the peers leave it open, keeps damaged and
hostile files from doing more harm than one UnreadableImage, and may run in many threads at once.
"""

import io
import logging
import re
import stat
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from siglip.download import data_uri_bytes, is_data_uri, is_url
from siglip.errors import UnreadableImage, clip
from siglip.pictures import READ_KINDS, kind_of
from siglip.processing import png
from siglip.processing.colour import ORIENTATION, SIDEWAYS, Plain, Refused, eight_bits, plain, turn_of

# io.BytesIO lacks the name and mode of a BinaryIO
ImageInput = str | Path | bytes | BinaryIO | io.BufferedIOBase | Image.Image | np.ndarray | torch.Tensor

# raster formats whose decoders are compiled and bounded; none starts another program (EPS, WMF) or guesses (TGA).
# The common ones come first: PIL imports all its plugins when it meets a name it has not loaded yet.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
MAX_FILE_BYTES = 2**29
# what is longer is shown cut; it is no path on any system
_LONGEST_PATH = 1024
_COUNTED_BYTES = 2**25
# PIL pictures load when first used, and not safely from two threads; the same picture always meets the same lock
_LOADING = tuple(threading.Lock() for _ in range(61))

# without a handler the library's error records would be printed on stderr
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_image(image: ImageInput, *, at_least_px: int | None = None) -> Image.Image:
    """Decode one picture to 8-bit RGB: upright by its EXIF orientation, in sRGB, transparent parts over white.

    A string is a path, or the picture itself as a data: URI, never a web address: nothing here reaches a network.
    Arrays are [height, width] or [height, width, channels], tensors [height, width] or [channels, height, width], with
    1, 3 or 4 channels; an array that only makes sense the other way round is taken so. Numbers: uint8; uint16 over its
    full range; floats in 0 to 1, or 0 to 255 where any is above 1. Of animations the first frame is read, of 16-bit
    grey all bits are scaled.
    With `at_least_px`, a JPEG file may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side falls below.
    A PIL picture that already is all this is returned itself, not a copy.

    Raises UnreadableImage, and nothing else, for whatever is wrong with the picture or its file: also when it is
    larger than PIL.Image.MAX_IMAGE_PIXELS, which is checked before its pixels take memory.
    """
    picture = decode_picture(image, at_least_px=at_least_px).image
    if picture is not image:
        # what was applied must not be applied again when this picture is read once more
        picture.info.clear()
        picture.getexif().pop(ORIENTATION, None)
    return picture


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A picture decoded once, for all that is to be done with it.

    `plain` are its pixels, upright and opaque, whose colours are cheaper to change once they are small. `width` and
    `height` are those of the upright picture in its file, in pixels, whatever size it was decoded at. `num_frames`
    counts the frames of an animation or the pages of a file, 1 for anything else; None: not counted, in a GIF or TIFF
    beyond 32 MB. `taken` is when the camera took it, by the camera's clock, None if the file does not say.
    """

    plain: Plain
    width: int
    height: int
    num_frames: int | None = 1
    taken: datetime | None = None

    @property
    def image(self) -> Image.Image:
        """The picture in sRGB."""
        return self.plain.rgb()


def decode_picture(image: ImageInput, *, at_least_px: int | None = None) -> DecodedPicture:
    """As `read_image`, with what the file says of the picture, and colours that are changed only when asked for."""
    try:
        with silence(), _opened(image, at_least_px) as (picture, size, num_frames):
            stored = plain(picture)
            width, height = reversed(size) if turn_of(picture) in SIDEWAYS else size
            return DecodedPicture(stored, width, height, num_frames, _taken(picture))
    except Exception as error:  # PIL lets through whatever its decoders meet: struct.error, OverflowError, EOFError ...
        raise UnreadableImage(image_name(image), _reason(error)) from error


def image_format(data: bytes) -> tuple[str, tuple[int, int]]:
    """PIL's name for the format of a file, and its width and height as stored; no pixel is decoded.

    Raises UnreadableImage.
    """
    stream = io.BytesIO(data)
    try:
        with silence():
            try:
                picture = open_header(stream, data[:32])
            except (ValueError, SyntaxError, Image.UnidentifiedImageError):
                if not _is_png(stream):
                    raise
                picture = png.open_without_notes(stream)
            with picture:
                return str(picture.format), picture.size
    except Exception as error:
        raise UnreadableImage("image", _reason(error)) from error


def image_name(image: ImageInput, index: int | None = None) -> str:
    """What to call this picture in a message: its path or URL, else "image 3" for position `index`."""
    if isinstance(image, str) and is_data_uri(image):
        return clip(image[:200])
    if isinstance(image, str | Path):
        return str(image) if len(str(image)) < _LONGEST_PATH else clip(str(image))
    for attribute in ("filename", "name"):
        name = getattr(image, attribute, None)
        if isinstance(name, str) and name:
            return name
    return "image" if index is None else f"image {index}"


# ---- opening


@contextmanager
def _opened(
    image: ImageInput, at_least_px: int | None
) -> Generator[tuple[Image.Image, tuple[int, int], int | None], None, None]:
    """The loaded picture, its size in the file, and the number of frames there."""
    if isinstance(image, Image.Image):
        with _LOADING[id(image) % len(_LOADING)]:
            if isinstance(image, ImageFile.ImageFile):
                _check_size(image)
            image.load()
            with suppress(Exception):
                image.getexif()
        yield image, image.size, 1
    elif isinstance(image, torch.Tensor):
        tensor = image.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        picture = _from_array(array, channels_first=True)
        yield picture, picture.size, 1
    elif isinstance(image, np.ndarray):
        picture = _from_array(image, channels_first=False)
        yield picture, picture.size, 1
    else:
        with _stream(image) as stream:
            try:
                loaded = _loaded(open_header(stream, stream.read(32)), stream, at_least_px)
            except (ValueError, SyntaxError, Image.UnidentifiedImageError):
                if not _is_png(stream):
                    raise
                loaded = _loaded(png.open_without_notes(stream), stream, at_least_px)
            with loaded[0]:
                yield loaded


def _is_png(stream: io.BufferedIOBase) -> bool:
    stream.seek(0)
    return stream.read(len(png.SIGNATURE)) == png.SIGNATURE


def open_header(stream: io.BufferedIOBase, head: bytes) -> Image.Image:
    """The picture before its pixels are decoded, told by its first bytes `head`."""
    stream.seek(0)
    kind = kind_of(head)
    if kind == "HEIC":
        try:
            from pillow_heif import HeifImageFile
        except ImportError:
            raise Refused("is a HEIC picture; pip install 'siglip[media]' to read it, or convert it to JPEG") from None
        return HeifImageFile(stream)
    if kind is not None and kind not in READ_KINDS:
        raise Refused(f"is a {kind} file, a kind that is not supported; convert it to JPEG or PNG")
    return Image.open(cast(BinaryIO, stream), formats=FORMATS)


def _loaded(
    picture: Image.Image, stream: io.BufferedIOBase, at_least_px: int | None
) -> tuple[Image.Image, tuple[int, int], int | None]:
    _check_size(picture)
    size, num_frames = picture.size, _num_frames(picture, stream)
    if at_least_px is not None and isinstance(picture, JpegImageFile):
        picture.draft(None, (at_least_px, at_least_px))
    picture.load()
    return picture, size, num_frames


@contextmanager
def _stream(image: str | Path | bytes | BinaryIO | io.BufferedIOBase) -> Generator[io.BufferedIOBase, None, None]:
    if isinstance(image, bytes):
        _check_bytes(len(image))
        yield io.BytesIO(image)
    elif isinstance(image, str) and is_data_uri(image):
        _check_bytes(len(image) * 3 // 4)
        try:
            data = data_uri_bytes(image)
        except ValueError as error:
            raise Refused(str(error)) from error
        yield io.BytesIO(data)
    elif isinstance(image, str) and is_url(image):
        raise Refused("is a web address, and preparing pictures reaches no network; hand over its bytes")
    elif isinstance(image, str | Path):
        status = Path(image).stat()
        if stat.S_ISDIR(status.st_mode):
            raise Refused("is a folder, expected a picture file; name the files in it")
        if not stat.S_ISREG(status.st_mode):
            raise Refused("is not a regular file; read it yourself and pass its bytes")
        _check_bytes(status.st_size)
        with Path(image).open("rb") as stream:
            yield stream
    elif hasattr(image, "read"):
        if image.seekable():
            image.seek(0)  # as PIL does: a buffer just written to stands at its end
        data = image.read(MAX_FILE_BYTES + 1)
        _check_bytes(len(data))
        yield io.BytesIO(data)
    else:
        raise Refused(
            f"is of type {type(image).__name__}, expected a path, bytes, binary file, PIL picture, array or tensor"
        )


def _num_frames(picture: Image.Image, stream: io.BufferedIOBase) -> int | None:
    if picture.format in ("GIF", "TIFF") and stream.seek(0, io.SEEK_END) > _COUNTED_BYTES:
        return None  # frames are counted by walking through the file
    try:
        count = int(getattr(picture, "n_frames", 1))
        if count > 1:
            picture.seek(0)
    except Exception:  # a broken second frame does not make a good first one unreadable
        return None
    return count


def _taken(picture: Image.Image) -> datetime | None:
    try:
        exif = picture.getexif().get_ifd(ExifTags.IFD.Exif)
        text = exif.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTimeDigitized)
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except Exception:  # absent, blank, or broken like all metadata can be
        return None


def _check_bytes(count: int) -> None:
    if count > MAX_FILE_BYTES:
        raise Refused(f"holds {count} bytes or more, the limit is {MAX_FILE_BYTES}; make it smaller")


def _check_size(picture: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels")


def _from_array(array: np.ndarray, *, channels_first: bool) -> Image.Image:
    if array.ndim == 3:
        first, last = array.shape[0] in (1, 3, 4), array.shape[2] in (1, 3, 4)
        if first and (channels_first or not last):
            array = np.moveaxis(array, 0, 2)
        if array.shape[2] == 1:
            array = array[:, :, 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise Refused(
            f"has the shape {list(array.shape)}, expected [height, width], [height, width, channels] or "
            "[channels, height, width] with 1, 3 or 4 channels; transpose or reshape it",
        )
    return Image.fromarray(np.ascontiguousarray(eight_bits(array)))


# ---- what PIL says on the way


class _Decoding(threading.local):
    """Looks like a compiled pattern to the warnings machinery; it matches in a thread that is decoding."""

    active = False

    def match(self, _: str) -> bool:
        return self.active


_DECODING = _Decoding()
_IGNORE = ("ignore", None, Warning, _DECODING, 0)
_FILTERS = threading.Lock()


@contextmanager
def silence() -> Generator[None, None, None]:
    """Drop the warnings of this thread only.

    warnings.catch_warnings swaps the filters of the whole process: two decoding threads that overlap would leave them
    swapped for good. One more filter, deaf outside of decoding, harms nobody.
    """
    filters = cast("list[Any]", warnings.filters)
    with _FILTERS:
        if _IGNORE not in filters[:1]:
            while _IGNORE in filters:
                filters.remove(_IGNORE)
            filters.insert(0, _IGNORE)
    _DECODING.active = True
    try:
        yield
    finally:
        _DECODING.active = False


def _reason(error: Exception) -> str:
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:  # the file system's, not PIL's
        return f"cannot be opened ({error.strerror}); check the path and its permissions"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"no picture, or one whose first bytes are damaged; expected one of {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        size = re.search(r"\d[\d x]*pixels", str(error))
        return (
            f"too large to decode safely: {size.group() if size else error}, the limit is {Image.MAX_IMAGE_PIXELS}; "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        )
    if isinstance(error, MemoryError):
        return "takes more memory than there is; make it smaller"
    return f"cannot be decoded ({type(error).__name__}: {error}); it is damaged or cut short, get a fresh copy"
