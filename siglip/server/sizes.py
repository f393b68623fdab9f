"""What a client names a picture by -> the pixels it costs to decode, by what its head says. Nothing is decoded here."""

import struct

from PIL import Image

from siglip.download import data_uri_bytes, is_data_uri

# of a picture whose head does not tell, or is not here yet
UNTOLD_PX = 2**22
# how much of a data URI is looked at: most heads are short, and those of some photographs hold a whole colour profile
_LENGTHS = (2**12, 2**20)
# markers of a JPEG file that begin a frame, and so tell its size; the four left out are tables
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def cost_px(name: str) -> int:
    """Width times height of a data URI, UNTOLD_PX of anything else; nothing for what is too large to be decoded."""
    if not is_data_uri(name):
        return UNTOLD_PX
    for length in _LENGTHS:
        try:
            width, height = _size(data_uri_bytes(name[:length]))
        except (ValueError, struct.error):  # too little of it, or none of these formats
            continue
        pixels = width * height
        return pixels if pixels <= (Image.MAX_IMAGE_PIXELS or pixels) else 0
    return UNTOLD_PX


def _size(head: bytes) -> tuple[int, int]:
    """Width and height in the formats of the web. Raises ValueError, and struct.error for a head that is cut."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return struct.unpack_from(">II", head, 16)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return struct.unpack_from("<HH", head, 6)
    if head.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", head, 18)
        return abs(width), abs(height)  # a height below zero is that of rows from above
    if head.startswith(b"\xff\xd8"):
        return _jpeg(head)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    raise ValueError("another format")


def _jpeg(head: bytes) -> tuple[int, int]:
    place = 2
    while True:
        start, marker, length = struct.unpack_from(">BBH", head, place)
        if start != 0xFF:
            raise ValueError("no JPEG")
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", head, place + 5)
            return width, height
        place += 1 if marker == 0xFF else 2 + length


def _webp(head: bytes) -> tuple[int, int]:
    if head[12:16] == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", head, 24)
        return low_w + (high_w << 16) + 1, low_h + (high_h << 16) + 1
    if head[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF
