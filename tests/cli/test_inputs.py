import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from siglip.cli.inputs import image_names, positive, texts
from siglip.errors import DataError, Failure, SiglipWarning

Make = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_folder_gives_its_pictures_in_order_hidden_ones_and_pipes_left_out(tmp_path: Path, picture: Make):
    for name in ("b.PNG", "a.jpg", "deep/er/c.webp", ".hidden.png", ".git/d.png", "notes.txt", "no_suffix"):
        picture(f"album/{name}")
    os.mkfifo(tmp_path / "album" / "pipe.png")
    (tmp_path / "album" / "gone.png").symlink_to("nowhere")
    with pytest.warns(SiglipWarning, match="album: 1 pictures passed over: 1 PNG without a suffix; rename"):
        assert image_names(["album"]) == (["album/a.jpg", "album/b.PNG", "album/gone.png", "album/deep/er/c.webp"], [])


def test_words_keep_their_order_and_a_named_file_needs_no_suffix(picture: Make):
    for name in ("z", "a.png", "album/m.png"):
        picture(name)
    assert image_names(["z", "album", "a.png", "z"])[0] == ["z", "album/m.png", "a.png", "z"]


def test_a_pattern_matches_as_in_a_shell_with_double_stars(picture: Make):
    for name in ("p/1.png", "p/2.png", "p/q/3.png", "p/4.txt"):
        picture(name)
    assert image_names(["p/*.png"])[0] == ["p/1.png", "p/2.png"]
    assert image_names(["p/**/*.png"])[0] == ["p/1.png", "p/2.png", "p/q/3.png"]
    assert image_names(["p*"])[0] == ["p/1.png", "p/2.png", "p/q/3.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(picture: Make):
    picture("a[1].png")
    picture("a1.png")
    assert image_names(["a[1].png"])[0] == ["a[1].png"]


def test_an_address_is_passed_on():
    assert image_names(["https://example.org/a?b=c*"])[0] == ["https://example.org/a?b=c*"]


def test_stdin_gives_a_word_a_line_whatever_its_bytes(monkeypatch: pytest.MonkeyPatch, picture: Make):
    odd = os.fsdecode(b"odd\xff name .png")
    for name in ("a.png", odd, "album/b.png"):
        picture(name)
    stdin = io.TextIOWrapper(io.BytesIO(b"a.png\r\n\n" + os.fsencode(odd) + b"\nalbum\nmissing.png"))
    monkeypatch.setattr("sys.stdin", stdin)
    names, failed = image_names(["-"])
    assert names == ["a.png", odd, "album/b.png"]
    assert [item.name for item in failed] == ["missing.png"]


def test_what_is_not_there_is_a_failure_with_the_nearest_name(picture: Make):
    picture("penguin.png")
    (Path.cwd() / "empty").mkdir()
    names, failed = image_names(["pengiun.png", "penguin.png", "empty", "x*.png", "", "n" * 5000])
    assert names == ["penguin.png"]
    assert failed == [
        Failure("pengiun.png", "no such file or folder; did you mean 'penguin.png'?"),
        Failure("empty", "no pictures in this folder; they are told by suffixes such as .jpg, .png, .webp"),
        Failure("x*.png", "no file matches this pattern"),
        Failure("", "an empty name"),
        Failure("n" * 5000, "File name too long"),
    ]


def test_no_picture_at_all_is_an_error_that_names_the_first_three(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match=r"^'a': no such file or folder; 'b': .*; 'c': .*; and 2 more$"):
        image_names(["a", "b", "c", "d", "e"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n\n")))
    with pytest.raises(DataError, match=r"^stdin names no pictures$"):
        image_names(["-"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_a_failure(picture: Make):
    picture("album/a.png")
    picture("album/locked/b.png").parent.chmod(0)
    assert image_names(["album"]) == (["album/a.png"], [Failure("album/locked", "Permission denied")])


def test_a_file_of_texts_skips_blank_lines_and_comments_only(tmp_path: Path):
    file = tmp_path / "labels.txt"
    file.write_bytes(b"\xef\xbb\xbf# heading\r\n  a cat \r\n\r\n\t# note\nC# code\nchat noir \xc3\xa9t\xc3\xa9")
    assert texts(None, file) == ["a cat", "C# code", "chat noir \u00e9t\u00e9"]
    assert texts(["given"], None) == ["given"]
    assert texts(None, None) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# only\n\n", "holds no text: every line is blank or a comment"),
        (b"", "holds no text"),
        (b"caf\xe9", r"is not UTF-8 text \(unexpected end of data at byte 3\)"),
    ],
)
def test_a_file_without_usable_text_is_an_error(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        texts(None, Path("labels.txt"))
    with pytest.raises(DataError, match=r"no file 'label.txt'; did you mean 'labels.txt'\?"):
        texts(None, Path("label.txt"))


def test_a_count_is_a_whole_number_from_one():
    assert positive("12") == 12
    for word in ("0", "-3", "1.5", "x", "\u00b2"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number >= 1, got "):
            positive(word)
