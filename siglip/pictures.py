"""Which files are pictures: by their suffix, by their first bytes, and in a folder. No torch here."""

import mimetypes
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from siglip.errors import warn

_READ = (
    ".apng .avif .bmp .dib .gif .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .pbm .pgm .png .pnm .ppm .tif "
    ".tiff .webp"
)
# what a folder or a shard is searched for; a file that is named is opened whatever its suffix
IMAGE_SUFFIXES = frozenset((*_READ.split(), *((".heic", ".heif", ".hif") if find_spec("pillow_heif") else ())))

_RAW = ".arw .cr2 .cr3 .dng .nef .orf .pef .raf .rw2 .srw"
RAW_SUFFIXES = frozenset(_RAW.split())

# kinds of pictures that are not read, and their suffixes
_UNREAD_KINDS = {
    "HEIC": ".heic .heif .hif",
    "JPEG XL": ".jxl",
    "TGA": ".tga",
    "Photoshop": ".psd .psb",
    "SVG": ".svg .svgz",
    "ICO": ".ico",
    "DDS": ".dds",
    "OpenEXR": ".exr",
    "Radiance HDR": ".hdr",
    "PCX": ".pcx",
    "QOI": ".qoi",
    "GIMP": ".xcf",
    "EPS": ".eps",
    "WMF": ".wmf .emf",
    "ICNS": ".icns",
    "SGI": ".sgi",
    "camera raw": _RAW,
}
_UNREAD = {suffix: kind for kind, suffixes in _UNREAD_KINDS.items() for suffix in suffixes.split()}
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"gimp xcf", "GIMP"),
    (b"<svg", "SVG"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), "HEIC"
)
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
# of these kinds a file is decoded without further libraries
READ_KINDS = frozenset(("JPEG", "PNG", "GIF", "TIFF", "JPEG 2000", "WebP", "AVIF", "BMP", "PPM"))


def kind_of(head: bytes) -> str | None:
    """The kind of picture whose first 32 bytes these are, None if they look like no picture."""
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[4:8] == b"ftyp":
        # a brand that stands for several kinds is followed by those that it is compatible with
        brands = [head[start : start + 4] for start in (8, *range(16, len(head), 4))]
        kinds = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "AVIF" if "AVIF" in kinds else "HEIC" if kinds else None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return "PPM" if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b"\n\r\t " and len(head) > 3 else None


def walk(folder: Path, unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    """All files below a folder, in the order of their names, hidden ones left out.

    Linked folders are followed, but not into a folder that they lie in themselves. `unreadable` is called with what is
    wrong with a folder that cannot be read.
    """
    yield from _walk(folder, unreadable, frozenset())


def _walk(folder: Path, unreadable: Callable[[OSError], None], above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        unreadable(error)
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    yield from (folder / name for name, is_folder in found if not is_folder)
    for name, is_folder in found:
        if is_folder:
            yield from _walk(folder / name, unreadable, above | {here})


class PassedOver:
    """Counts the pictures among the files of a folder that are not taken, by kind, and says so once."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, file: Path) -> None:
        """Count a file if it is a picture: by its suffix, or by its bytes where the suffix says nothing."""
        suffix = file.suffix.lower()
        if suffix in _UNREAD:
            self._counts[_UNREAD[suffix]] += 1
        elif mimetypes.guess_type(file.name)[0] is None and (kind := _kind_of_file(file)):
            self._counts[f"{kind} {f'named {suffix}' if suffix else 'without a suffix'}"] += 1

    def warn(self, where: object) -> None:
        """One warning with the counts, if there is anything to tell."""
        if not self._counts:
            return
        told = ", ".join(f"{count} {kind}" for kind, count in self._counts.most_common())
        hints = ["pip install 'siglip[media]' to read HEIC"] if "HEIC" in self._counts else []
        if set(self._counts) - {"HEIC"}:
            hints.append("rename those without a suffix to .jpg or what they are, convert the others to JPEG or PNG")
        warn(f"{where}: {self._counts.total()} pictures passed over: {told}; {'; '.join(hints)}")


def _kind_of_file(file: Path) -> str | None:
    with suppress(OSError):
        if file.is_file():
            with file.open("rb") as stream:
                return kind_of(stream.read(32))
    return None


def cores() -> int:
    """Processors that this process may use, each for one thread that decodes: a container may have few of many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
