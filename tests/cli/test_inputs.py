import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from siglip.cli.inputs import UsageError, image_names, positive, texts
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


def test_stdin_gives_names_that_end_with_nul_where_that_is_asked(monkeypatch: pytest.MonkeyPatch, picture: Make):
    names = ["a.png", "two\nlines.png", "-dash.png"]
    for name in names:
        picture(name)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"".join(name.encode() + b"\0" for name in names))))
    assert image_names(["-"], null=True) == (names, [])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "names"])
def test_a_picture_or_nul_where_names_are_expected_is_an_error(monkeypatch: pytest.MonkeyPatch, kind: str):
    piped = io.BytesIO(b"a.png\0b.png\0")
    if kind != "names":
        Image.linear_gradient("L").save(piped := io.BytesIO(), kind)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped.getvalue())))
    with pytest.raises(DataError, match=r"^stdin holds NUL characters.*add --null \(-0\); to use a picture itself"):
        image_names(["-"])


def test_what_is_useless_among_the_matches_of_a_pattern_costs_only_itself(picture: Make):
    picture("p/a.png")
    (Path("p") / "empty").mkdir()
    (Path("p") / "gone.png").symlink_to("nowhere")
    names, failed = image_names(["p/*"])
    assert names == ["p/a.png"]
    assert [(item.name, item.reason[:20]) for item in failed] == [
        ("p/empty", "no pictures in this "), ("p/gone.png", "a link to a file tha"),
    ]  # fmt: skip


def test_links_that_lead_in_circles_are_followed_once_in_folders_and_not_by_double_stars(picture: Make):
    picture("p/a.png")
    picture("elsewhere/b.png")
    Path("p/circle").symlink_to("..")
    assert image_names(["p"]) == (["p/a.png", "p/circle/elsewhere/b.png"], [])
    assert image_names(["**/*.png"]) == (["elsewhere/b.png", "p/a.png"], [])
    assert image_names(["p/**"]) == image_names(["p"])


def test_double_stars_pass_over_hidden_folders_and_work_from_the_root(tmp_path: Path, picture: Make):
    for name in ("p/.git/a.png", "p/q/b.png", "p/q/[x]/c.png"):
        picture(name)
    expected = [f"{tmp_path}/p/q/b.png", f"{tmp_path}/p/q/[x]/c.png"]
    assert image_names([f"{tmp_path}/**/*.png"]) == (expected, [])
    assert image_names(["p/**/[[]x]/**/*.png"]) == (["p/q/[x]/c.png"], [])


def test_a_hint_names_only_what_can_be_used(picture: Make):
    picture("a.png")
    Path("penguin.txt").touch()
    Path("penguins.png").symlink_to("nowhere")
    assert image_names(["penguin.png", "a.png"])[1] == [Failure("penguin.png", "no such file or folder")]


def test_what_is_not_there_is_a_failure_with_the_nearest_name(picture: Make):
    picture("penguin.png")
    (Path.cwd() / "empty").mkdir()
    names, failed = image_names(["pengiun.png", "penguin.png", "empty", "x*.png", "", "n" * 5000])
    assert names == ["penguin.png"]
    assert failed == [
        Failure("pengiun.png", "no such file or folder; did you mean 'penguin.png'?"),
        Failure("empty", "no pictures in this folder; they are recognised by suffixes such as .jpg, .png, .webp"),
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
        (b"# only\n\n", "contains no text: every line is blank or a comment"),
        (b"", "contains no text"),
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


@pytest.mark.parametrize("word", ["labels.txt", "album/a.jpg"])
def test_a_file_among_the_texts_is_refused_for_it_was_meant_to_be_read(picture: Make, word: str):
    picture("album/a.jpg")
    Path("labels.txt").write_text("cat\ndog\n", encoding="utf-8")
    Path("cat").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=f"'{word}' is a file but was given as a text.* --labels-file"):
        texts(["a dog", word], None)
    assert texts(["cat", "album", "a cat. Of mine", "x" * 5000 + ".txt"], None)[:2] == ["cat", "album"]
