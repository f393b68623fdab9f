"""Small good files of every format, a thousand damaged ones made of them, and bombs.

Run as a program it reads them all and prints what happened as JSON.
"""

import io
import json
import random
import resource
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms

from siglip.config import ImageSettings
from siglip.errors import UnreadableImage
from siglip.processing import SiglipImageProcessor


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def good_files() -> dict[str, bytes]:
    numbers = np.random.default_rng(0)
    rgb = Image.fromarray(numbers.integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize((61, 47))
    sixteen = Image.fromarray(numbers.integers(0, 65536, (20, 30), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a title"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(90)]}
    files = {
        "jpeg": encoded(rgb, "JPEG", exif=exif, icc_profile=profile),
        "jpeg-progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg-cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "mpo": encoded(rgb, "MPO", exif=exif, **frames),
        "png": encoded(rgb, "PNG", exif=exif, icc_profile=profile),
        "png-palette": encoded(rgb.quantize(20), "PNG", transparency=3),
        "png-16": encoded(sixteen, "PNG"),
        "apng": encoded(rgb, "PNG", **frames),
        "gif": encoded(rgb, "GIF", comment=b"hello", **frames),
        "bmp": encoded(rgb, "BMP"),
        "bmp-palette": encoded(rgb.quantize(16), "BMP"),
        "webp": encoded(rgb, "WEBP", exif=exif),
        "webp-lossless": encoded(rgb.convert("RGBA"), "WEBP", lossless=True),
        "webp-animated": encoded(rgb, "WEBP", **frames),
        "tiff-16": encoded(sixteen, "TIFF"),
        "ppm": encoded(rgb, "PPM"),
        "avif": encoded(rgb, "AVIF"),
        "jpeg2000": encoded(rgb, "JPEG2000"),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        files[f"tiff-{compression}"] = encoded(rgb, "TIFF", compression=compression, exif=exif)
    return files


# ---- ways to break a file


def flip_a_bit(data: bytearray, chance: random.Random) -> bytearray:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def cut(data: bytearray, chance: random.Random) -> bytearray:
    return data[: chance.randrange(len(data))]


def edit_the_header(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(min(len(data), 64))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    return data


def put_in_a_number(data: bytearray, chance: random.Random) -> bytearray:
    place = chance.randrange(len(data) - 4)
    number = chance.choice([0, 1, 70_000, 2**31 - 1, 2**31, 2**32 - 1, chance.randrange(2**32)])
    data[place : place + 4] = struct.pack(chance.choice("<>") + "I", number)
    return data


def scatter_noise(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.randint(5, 60)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return data


def repeat_a_part(data: bytearray, chance: random.Random) -> bytearray:
    start = chance.randrange(len(data))
    end = chance.randrange(start, len(data))
    return data[:end] + data[start:]


BREAKS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    flip_a_bit,
    cut,
    edit_the_header,
    put_in_a_number,
    scatter_noise,
    repeat_a_part,
)


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks pass PIL's first check, so that the damage reaches the decoder."""
    repaired, place = bytearray(data[:8]), 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        if place + 12 + length > len(data):
            break
        repaired += png_chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length])
        place += 12 + length
    return bytes(repaired) + data[place:]


def damaged(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(seed)
    good = good_files()
    for index in range(count):
        name = list(good)[index % len(good)]
        how = chance.choice(BREAKS)
        data = bytes(how(bytearray(good[name]), chance))
        if name.endswith("png") and how is not cut and chance.random() < 0.7:
            data = with_right_checksums(data)
        yield f"{name} {how.__name__}", data


# ---- bombs


def png_chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)


def compressed_zeros(count: int, times: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(count)) for _ in range(times)) + packer.flush()


def png_bomb(side: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A valid PNG of `side` x `side` black pixels in a few kilobytes."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = compressed_zeros(1 + (side + 7) // 8, side)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, data) for name, data in chunks)


def bombs() -> dict[str, bytes]:
    good = good_files()
    zeros = compressed_zeros(1_000_000, 200)
    jpeg, bmp = bytearray(good["jpeg"]), bytearray(good["bmp"])
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = b"\xff\xff\xff\xff"
    bmp[18:26] = struct.pack("<ii", 2**30, 2**30)
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + b"\xfe\x3f\x00" * 2
    webp = canvas + good["webp-lossless"][12:]
    return {
        "png pixels": png_bomb(30_000),
        "png text": png_bomb(8, (b"zTXt", b"a\0\0" + zeros)),
        "png profile": png_bomb(8, (b"iCCP", b"a\0\0" + zeros)),
        "jpeg": bytes(jpeg),
        "bmp": bytes(bmp),
        "gif": good["gif"][:6] + b"\xff\xff\xff\xff" + good["gif"][10:],
        "webp": b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp,
        "ppm": b"P6 100000 100000 255\n" + bytes(100),
    }


def main() -> None:
    processor = SiglipImageProcessor(ImageSettings(image_size=32))
    good = list(good_files().items())
    expected = {name: processor.pixels(data) for name, data in good}
    all_bombs = bombs()
    # what PIL would refuse anyway is below; this keeps what a random header may ask for within the test's means
    Image.MAX_IMAGE_PIXELS = 2**22
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome: dict[str, Any] = {"damaged": 0, "read": 0, "refused": 0, "escaped": [], "good_files_changed": []}
    for index, (name, data) in enumerate(damaged(1000, seed=0)):
        outcome["damaged"] += 1
        try:
            processor.pixels(data, reduced=bool(index % 2))
            outcome["read"] += 1
        except UnreadableImage:
            outcome["refused"] += 1
        except BaseException as error:
            outcome["escaped"].append(f"{name}: {type(error).__name__}: {error}")
        whole, data = good[index % len(good)]
        if not np.array_equal(processor.pixels(data), expected[whole]):
            outcome["good_files_changed"].append(whole)
    outcome["bombs_read"] = []
    Image.MAX_IMAGE_PIXELS = 89_478_485
    for name, data in all_bombs.items():
        try:
            processor.pixels(data)
            outcome["bombs_read"].append(name)
        except UnreadableImage as error:
            print(name, error.reason, file=sys.stderr)
    try:
        processor.pixels(cast(Any, None))  # not under the type hook, so that our own check is met
    except UnreadableImage as error:
        outcome["nothing"] = error.reason
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({**outcome, "peak_growth_bytes": growth}))


if __name__ == "__main__":
    main()
