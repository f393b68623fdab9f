"""Films are made here with the library that reads them; raw files by hand, as the smallest DNG that LibRaw takes."""

import io
import os
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from siglip.cli.main import main
from siglip.errors import UnreadableImage
from siglip.search import Library, media, schema, walk
from siglip.search.media import stills
from tests.search.conftest import CountingEmbedder, draw

Make = Callable[..., Library]
Colour = tuple[int, int, int]
RED, GREEN, BLUE, WHITE, BLACK = (220, 20, 20), (20, 220, 20), (20, 20, 220), (240, 240, 240), (0, 0, 0)


@pytest.fixture(autouse=True)
def _without_measuring_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand words a library take longer than all else here."""
    monkeypatch.setattr("siglip.search.library.measure_absence", lambda *_: None)


def film(file: Path, seconds: list[Colour], *, rotation: int = 0, **metadata: str) -> Path:
    """A film with a second of each colour, five frames a second and a key frame every four seconds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(file, "w") as container:
        container.metadata.update(metadata)
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 20
        if rotation:
            stream.set_display_rotation(rotation)
        for colour in seconds:
            pixels = np.full((48, 64, 3), colour, np.uint8)
            for _ in range(5):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file


def colour_of(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), float).mean((0, 1))


def dng(file: Path, preview: Image.Image, *, flip: int = 1) -> Path:
    """A sensor of 32 x 32 values of one grey, and a JPEG preview; `flip` is an EXIF orientation."""
    buffer = io.BytesIO()
    preview.save(buffer, "JPEG", quality=95)
    jpeg, sensor = buffer.getvalue(), np.full((32, 32), 30_000, "<u2").tobytes()
    short, long, byte, rational = 3, 4, 1, 10

    def table(entries: list[tuple[int, int, int, bytes]], at: int) -> bytes:
        body, extra = struct.pack("<H", len(entries)), b""
        rest = at + 2 + 12 * len(entries) + 4
        for tag, kind, count, value in sorted(entries):
            if len(value) <= 4:
                body += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
            else:
                body += struct.pack("<HHII", tag, kind, count, rest + len(extra))
                extra += value + b"\0" * (len(value) % 2)
        return body + struct.pack("<I", 0) + extra

    def number(tag: int, kind: int, *values: int) -> tuple[int, int, int, bytes]:
        return tag, kind, len(values), struct.pack(f"<{len(values)}{'H' if kind == short else 'I'}", *values)

    identity = struct.pack("<18i", *(value for i in range(9) for value in (int(i % 4 == 0), 1)))
    for round_trip in range(2):  # the second time offsets are known
        if round_trip == 0:
            sub = jpeg_at = sensor_at = 0
        main = [
            number(254, long, 1), number(256, long, preview.width), number(257, long, preview.height),
            number(258, short, 8, 8, 8), number(259, short, 7), number(262, short, 6), number(273, long, jpeg_at),
            number(274, short, flip), number(277, short, 3), number(278, long, preview.height),
            number(279, long, len(jpeg)), number(330, long, sub),
            (50706, byte, 4, bytes((1, 4, 0, 0))), (50708, 2, 8, b"Testing\0"), (271, 2, 8, b"Tester \0"),
            (272, 2, 8, b"Testing\0"), (50721, rational, 9, identity), number(50778, short, 21),
        ]  # fmt: skip
        raw = [
            number(254, long, 0), number(256, long, 32), number(257, long, 32), number(258, short, 16),
            number(259, short, 1), number(262, short, 32803), number(273, long, sensor_at), number(277, short, 1),
            number(278, long, 32), number(279, long, len(sensor)), (33421, short, 2, struct.pack("<2H", 2, 2)),
            (33422, byte, 4, bytes((0, 1, 1, 2))), number(50717, long, 65535), number(274, short, flip),
        ]  # fmt: skip
        first = table(main, 8)
        sub = 8 + len(first)
        second = table(raw, sub)
        jpeg_at = sub + len(second)
        sensor_at = jpeg_at + len(jpeg) + len(jpeg) % 2
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"II*\0" + struct.pack("<I", 8) + first + second + jpeg.ljust(sensor_at - jpeg_at, b"\0") + sensor)
    return file


def test_frames_are_spread_over_a_film_each_with_its_time_and_black_ones_are_left_out(tmp_path: Path):
    shown = [BLACK, RED, RED, GREEN, GREEN, BLACK, BLUE, BLUE, BLACK, BLACK, BLACK, BLACK]
    found = stills(str(film(tmp_path / "x.mp4", shown)), "film")
    # four parts of three seconds, the last of them black
    assert [round(still.facts["seconds"]) // 3 for still in found] == [0, 1, 2]
    for still in found:
        expected = shown[int(still.facts["seconds"])]
        assert expected != BLACK
        assert np.abs(colour_of(still.picture) - expected).max() < 25
        assert (still.facts["width"], still.facts["height"], still.facts["format"]) == (64, 48, "MP4")
    long = stills(str(film(tmp_path / "long.mkv", [WHITE, RED, GREEN, BLUE, WHITE] * 12)), "film")
    times = [still.facts["seconds"] for still in long]
    assert [int(time // 10) for time in times] == list(range(6))


def test_films_are_upright_and_tell_when_they_were_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = film(tmp_path / "x.mov", [WHITE] * 4, rotation=90, creation_time="2024-05-31T16:20:00.000000Z")
    still = stills(str(file), "film")[0]
    assert still.picture.size == (still.facts["width"], still.facts["height"]) == (48, 64)
    assert still.facts["taken"][:15] in {f"2024-05-31T{hour:02}:2" for hour in range(24)} | {"2024-06-01T0"}


def test_films_in_a_library_are_found_by_their_best_frame_and_known_again(
    tmp_path: Path, make: Make, embedder: CountingEmbedder
):
    file = film(tmp_path / "photos" / "x.mp4", [RED] * 3 + [WHITE] * 3 + [BLUE] * 3 + [GREEN] * 3)
    draw(tmp_path / "photos" / "blocks.png", 3)
    for name, colour in (("blue", BLUE), ("white", WHITE)):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{name}.png")
    with make() as library:
        report = library.index([tmp_path / "photos"])
        assert (report.found, report.embedded, report.broken) == (2, 5, 0)
        for name, begin in (("blue", 6), ("white", 3)):
            hits = library.similar(tmp_path / f"{name}.png")
            assert [Path(hit.path).name for hit in hits] == ["x.mp4", "blocks.png"]
            image = hits[0].image
            assert image.seconds is not None and begin <= image.seconds < begin + 3
        thumb = library.thumbnail(hits[0].digest, hits[0].image.frame)
        library.thumbs.clear()
        assert thumb is not None and library.thumbnail(hits[0].digest, hits[0].image.frame) == thumb
        embedder.pictures = 0
        file.rename(file.with_name("y.mp4"))
        assert library.index().known == 1
        library.export_vectors(tmp_path / "out")
        with make("other") as other:
            assert other.import_vectors(tmp_path / "out").added == 5
            assert embedder.pictures == 0
            assert other.similar(tmp_path / "blue.png")[0].image == library.similar(tmp_path / "blue.png")[0].image
        assert library.check() == ([], [])


def test_a_filter_costs_nothing_for_films_where_there_are_none():
    """Counted in steps of SQLite: two for each file would be 4,000."""
    catalogue = sqlite3.connect(":memory:")
    catalogue.deserialize(schema.empty())
    catalogue.execute("INSERT INTO folder(path) VALUES (?)", (b"/pictures/",))
    for number in range(1, 2001):
        catalogue.execute("INSERT INTO image(digest, width, seal) VALUES (?, ?, 0)", (os.urandom(32), number))
        catalogue.execute("INSERT INTO file VALUES (1, ?, 1, 1, ?, 0)", (f"{number}.jpg".encode(), number))
    steps: list[None] = []
    catalogue.set_progress_handler(lambda: steps.append(None), 1)
    assert catalogue.execute(f"SELECT i.id FROM {schema.FURTHER} WHERE i.width > 1500").fetchall() == []
    assert len(steps) < 100
    assert len(catalogue.execute(f"SELECT i.id FROM {schema.PICTURES} WHERE i.width > 1500").fetchall()) == 500
    catalogue.close()


def test_a_terminal_and_a_page_show_the_moment_of_a_film_and_a_pipe_the_bare_path(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    file = film(tmp_path / "photos" / "x.mp4", [RED] * 3 + [WHITE] * 3 + [BLUE] * 3 + [GREEN] * 3)
    with make() as library:
        library.index([file.parent])
        (hit,) = library.search("blocks")
    assert hit.image.seconds is not None
    page = tmp_path / "x.html"
    words = ["search", "blocks", "--all", "--library", str(library.folder)]
    assert main([*words, "--html", str(page)]) == 0
    moment = f"at 0:{int(hit.image.seconds):02}"
    assert str(file) in capsys.readouterr().out.split()
    assert moment in page.read_text()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(words) == 0
    assert f"{file} {moment}" in capsys.readouterr().out


def test_broken_films_and_films_of_black_are_recorded_with_their_reason(tmp_path: Path, make: Make):
    film(tmp_path / "photos" / "black.mp4", [BLACK] * 4)
    (tmp_path / "photos" / "none.mov").write_bytes(b"no film at all")
    with make() as library:
        report = library.index([tmp_path / "photos"])
        assert (report.embedded, report.broken) == (0, 2)
        reasons = {Path(path).name: reason for path, reason in library.broken().items()}
        assert "not black" in reasons["black.mp4"] and "cannot be decoded" in reasons["none.mov"]
        assert library.index().to_read == 0


def test_the_preview_of_a_raw_file_is_read_and_turned_upright(tmp_path: Path, make: Make):
    preview = Image.new("RGB", (96, 64), BLUE)
    preview.paste(RED, (0, 0, 96, 32))  # red above blue
    (plain,) = stills(str(dng(tmp_path / "x.dng", preview)), "camera raw")
    assert plain.picture.size == (96, 64)
    (turned,) = stills(str(dng(tmp_path / "photos" / "y.dng", preview, flip=6)), "camera raw")
    assert turned.picture.size == (64, 96)
    left, right = (colour_of(turned.picture.crop(box)) for box in ((0, 0, 28, 96), (36, 0, 64, 96)))
    # turned clockwise, what was above is to the right
    assert np.abs(left - BLUE).max() < 25 and np.abs(right - RED).max() < 25
    with make() as library:
        assert library.index([tmp_path / "photos"]).embedded == 1
        (hit,) = library.search("blocks")
        assert (Path(hit.path).name, hit.image.format, hit.image.seconds) == ("y.dng", "DNG", None)
    (tmp_path / "z.dng").write_bytes(b"II*\0nothing")
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        stills(str(tmp_path / "z.dng"), "camera raw")


def test_without_the_libraries_films_and_raw_files_are_counted_by_kind(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a.mp4", "b.MOV", "c.dng"):
        draw(tmp_path / "photos" / "d.png", 1).with_name(name).write_bytes(b"x")
    monkeypatch.setattr(walk, "_SUFFIXES", walk.IMAGE_SUFFIXES)
    with make() as library:
        report = library.index([tmp_path / "photos"])
        assert report.found == 1
        assert "2 film files, 1 camera raw files are passed over; pip install 'siglip[media]'" in report.notes[0]
    monkeypatch.setitem(media._NEEDS, "film", "no_such_library")
    assert not media.can_read("film") and media.can_read("camera raw")
    assert os.sep not in media.FILM_SUFFIXES
