"""A PNG file whose notes PIL refuses for their size -> the same picture with its pixels, and the notes that matter.

Texts, XMP and colour profiles are unpacked by PIL up to a megabyte, beyond which it refuses the whole file. Here they
are taken out of the file, and the two that change how a picture looks are unpacked up to a limit of our own.
"""

import io
import zlib
from collections.abc import Iterator

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_NOTE_BYTES = 2**24
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp\0"


def open_without_notes(stream: io.BufferedIOBase) -> Image.Image:
    """Open a PNG file without its texts and profile; raises what PIL raises for the rest of it."""
    kept = bytearray(SIGNATURE)
    notes: dict[str, bytes] = {}
    for kind, chunk in _chunks(stream):
        content = chunk[8:-4]
        if kind == b"iCCP":
            notes["icc_profile"] = _unpacked(content.partition(b"\0")[2][1:])
        elif kind == b"iTXt" and content.startswith(_XMP):
            notes["xmp"] = _xmp(content[len(_XMP) :])
        elif kind not in _TEXTS:
            kept += chunk
    picture = Image.open(io.BytesIO(kept), formats=("PNG",))
    picture.info.update({name: note for name, note in notes.items() if note})
    return picture


def _chunks(stream: io.BufferedIOBase) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each chunk, its length, kind and checksum included; of the last what there is of it."""
    stream.seek(len(SIGNATURE))
    while header := stream.read(8):
        yield header[4:8], header + stream.read(int.from_bytes(header[:4]) + 4)


def _xmp(content: bytes) -> bytes:
    """The packet behind its keyword: two flags, a language and a translated keyword, each ended by a zero byte."""
    packed, text = content[:1] == b"\1", content[2:].split(b"\0", 2)[-1]
    return _unpacked(text) if packed else text


def _unpacked(data: bytes) -> bytes:
    """Nothing for what is damaged or beyond the limit."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, _MAX_NOTE_BYTES)
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else content
