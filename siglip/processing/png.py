"""A PNG file whose notes PIL refuses -> the same picture with its pixels, and the notes that matter.

Texts, XMP and colour profiles are unpacked by PIL up to a megabyte, beyond which it refuses the whole file. Here they
are taken out of the file, and the two that change how a picture looks are unpacked up to a limit of our own. Other
notes (their names begin with a small letter) are left out if their checksum is wrong, as other readers do.
"""

import io
import zlib

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_NOTE_BYTES = 2**24
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp\0"


def open_without_notes(stream: io.BufferedIOBase) -> Image.Image:
    """Open a PNG file without its texts, its profile and damaged notes; raises what PIL raises for the rest of it."""
    kept = bytearray(SIGNATURE)
    notes: dict[str, bytes] = {}
    stream.seek(len(SIGNATURE))
    while header := stream.read(8):
        # length and kind, content, checksum; of the last chunk what there is of it
        kind, chunk = header[4:8], header + stream.read(int.from_bytes(header[:4]) + 4)
        content = chunk[8:-4]
        if kind == b"iCCP":
            notes["icc_profile"] = _unpacked(content.partition(b"\0")[2][1:])
        elif kind == b"iTXt" and content.startswith(_XMP):
            # behind the keyword: two flags, a language and a translated keyword, each ended by a zero byte
            packet = content[len(_XMP) :]
            packed, text = packet[:1] == b"\1", packet[2:].split(b"\0", 2)[-1]
            notes["xmp"] = _unpacked(text) if packed else text
        elif kind not in _TEXTS and (kind[:1].isupper() or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])):
            kept += chunk
    picture = Image.open(io.BytesIO(kept), formats=("PNG",))
    picture.info.update({name: note for name, note in notes.items() if note})
    return picture


def _unpacked(data: bytes) -> bytes:
    """Nothing for what is damaged or beyond the limit."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, _MAX_NOTE_BYTES)
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else content
