"""Pictures are told by suffix and by bytes; folders are walked to their end, links and all, the rest is told."""

import io
import os
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image

from siglip.errors import SiglipWarning
from siglip.pictures import IMAGE_SUFFIXES, READ_KINDS, PassedOver, cores, kind_of, walk

PICTURE = Image.new("RGB", (8, 6), "teal")


@pytest.mark.parametrize(
    ("pil", "kind"),
    [
        ("JPEG", "JPEG"),
        ("MPO", "JPEG"),
        ("PNG", "PNG"),
        ("GIF", "GIF"),
        ("BMP", "BMP"),
        ("PPM", "PPM"),
        ("WEBP", "WebP"),
        ("TIFF", "TIFF"),
        ("AVIF", "AVIF"),
        ("JPEG2000", "JPEG 2000"),
        ("DDS", "DDS"),
        ("TGA", None),
    ],
)
def test_the_first_bytes_that_pil_writes_tell_the_kind(pil: str, kind: str | None) -> None:
    stream = io.BytesIO()
    PICTURE.save(stream, pil)
    assert kind_of(stream.getvalue()[:32]) == kind
    assert (kind in READ_KINDS) == (pil not in ("DDS", "TGA"))


def test_other_bytes_are_other_kinds_or_none() -> None:
    stream = io.BytesIO()
    pillow_heif.from_pillow(PICTURE).save(stream)
    assert kind_of(stream.getvalue()[:32]) == "HEIC"
    assert kind_of(b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiafMA1B") == "AVIF"
    assert kind_of(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41") is None
    assert kind_of(b"\xff\x0a\x10\x20") == "JPEG XL"
    for head in (b"", b"P", b"BM", b"BM is how this text begins, and it is long", b"Photo 1", b"%PDF-1.7", b"hello"):
        assert kind_of(head) is None


def test_linked_folders_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for file in (root / "a" / "1.png", root / "b" / "2.png", elsewhere / "deep" / "3.png", root / ".hidden" / "4.png"):
        file.parent.mkdir(parents=True)
        file.touch()
    (root / "linked").symlink_to(elsewhere)
    (root / "a" / "up").symlink_to("..")
    (elsewhere / "deep" / "self").symlink_to(".")
    (elsewhere / "back").symlink_to(root)
    (root / "gone").symlink_to("nowhere")
    found = [str(file.relative_to(root)) for file in walk(root, pytest.fail)]
    assert found == ["gone", "a/1.png", "b/2.png", "linked/deep/3.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    errors: list[OSError] = []
    assert list(walk(tmp_path, errors.append)) == []
    assert [error.filename for error in errors] == [str(tmp_path / "closed")]


def test_what_is_passed_over_is_counted_by_kind_and_said_once(tmp_path: Path) -> None:
    files = {"a.heic": b"", "b.HEIC": b"", "c.tga": b"", "d.jxl": b"", "notes.txt": b"P1 ", "table.csv": b"GIF8"}
    stream = io.BytesIO()
    PICTURE.save(stream, "JPEG")
    files |= {"no_suffix": stream.getvalue(), "x.jpg_large": stream.getvalue(), "readme": b"hello", "e.zzz": b"hello"}
    passed_over = PassedOver()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        passed_over.add(tmp_path / name)
    with pytest.warns(SiglipWarning) as caught:
        passed_over.warn("photos")
    assert [str(item.message) for item in caught] == [
        "photos: 6 pictures passed over: 2 HEIC, 1 TGA, 1 JPEG XL, 1 JPEG without a suffix, 1 JPEG named .jpg_large; "
        "pip install 'siglip[media]' to read HEIC; rename those without a suffix to .jpg or what they are, convert the "
        "others to JPEG or PNG"
    ]
    PassedOver().warn("nothing is said of none")


def test_heic_counts_as_a_picture_where_its_library_is() -> None:
    assert {".heic", ".jp2", ".mpo", ".jpg"} <= IMAGE_SUFFIXES


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_the_processors_counted_are_those_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores() == len(allowed)
