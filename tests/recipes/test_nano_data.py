"""The data of the built-in model: captions, held-out pictures never trained on, builds that go on."""

import gzip
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import build
import clip_art
import emoji
import icons
import numpy as np
import pack
import packages
import pair
import photos
import pytest
import symbols
from drawing import drawn, drawn_box, fitted
from packages import GitHub, Npm, PackageError, fetched
from PIL import Image
from sources import SOURCES, Source
from wordnet import WordNet, varied

from siglip.data import open_source

WORDS = {"red", "house", "hot", "dog", "food", "sausage", "bread"}


def square(colour: str, size: int = 64, *, at: tuple[int, int] = (16, 16)) -> Image.Image:
    """A coloured square of half the side on white."""
    picture = Image.new("RGB", (size, size), "white")
    picture.paste(Image.new("RGB", (size // 2, size // 2), colour), at)
    return picture


def a_pair(id: str, picture: Image.Image, *captions: str) -> pair.Pair:
    return pair.Pair(id=id, drawing=picture, captions=captions)


def a_source(read: Callable[[], Iterator[pair.Pair]] = lambda: iter(()), style: str = "icon") -> Source:
    return Source((), read, "nobody", "CC0-1.0", style)


def staged(path: Path, name: str, *pairs: pair.Pair, style: str = "icon") -> list[pack.Staged]:
    pack.stage(pairs, name, a_source(style=style), path / f"{name}.tar")
    return pack.read_staged(path / f"{name}.tar")


def test_wordnet_gives_other_words_and_a_wider_one_that_people_say(words: Path) -> None:
    wordnet = WordNet(words)
    assert (wordnet.synonyms("Penguin"), wordnet.kind("Penguin")) == (["flightless bird"], "bird")
    assert (wordnet.synonyms("emperor penguin"), wordnet.kind("emperor penguin")) == ([], "bird")
    assert (wordnet.synonyms("bank"), wordnet.kind("zebra"), wordnet.kind("flag of penguin")) == ([], None, None)


def test_a_thing_is_of_a_kind_if_all_its_usual_senses_are(words: Path) -> None:
    wordnet = WordNet(words)
    assert (wordnet.is_a("Penguin", "bird"), wordnet.is_a("penguin", "plant")) == (True, False)
    assert (wordnet.is_a("zebra", "bird"), wordnet.is_a("bank", "penguin")) == (None, None)


def test_a_caption_is_said_in_other_words(words: Path) -> None:
    wordnet = WordNet(words)
    captions = ["a penguin, ice, snow, cold", "a penguin"]
    assert varied(captions, "clipart", wordnet) == [
        *captions,
        "a drawing of penguin",
        "flightless bird",
        "penguin, bird",
        "flightless bird, bird",
        "penguin, cold",
    ]
    assert "a photo of penguin" in varied(captions, "photo", wordnet)
    assert "black silhouette of penguin" in varied(captions, "icon-glyph", wordnet)
    assert varied(["to run"], "pictogram", wordnet) == ["to run"]
    sentence = ["two penguins stand on a rock"]
    assert varied(sentence, "photo", wordnet) == sentence


def test_training_pairs_come_as_often_as_their_source_is_visited(tmp_path: Path, words: Path) -> None:
    emoji_pairs = staged(tmp_path, "emoji", a_pair("1F427", square("red"), "penguin"))
    icon_pairs = staged(tmp_path, "icons", a_pair("square", square("blue"), "square"))
    made = pack.for_training([*emoji_pairs, *icon_pairs], WordNet(words), {"emoji": 2, "icons": 1})
    assert [sample.key for sample in made] == ["emoji_00000", "emoji_00000_1", "icons_00000"]
    assert made[0].facts["captions"] == made[1].facts["captions"]
    assert made[0].facts["captions"][0] == "penguin" and len(made[0].facts["captions"]) == 5


def test_tags_that_add_no_word_are_passed_over() -> None:
    tags = ["cat", "cats", "animal", "Cat animal", "pet", "whiskers"]
    assert pair.with_tags("cat face", tags, 2) == "cat face, animal, pet"


def test_the_first_of_equal_captions_stays_and_keeps_its_place() -> None:
    assert pair.distinct(["A cat", "cat,", "a cat", "", "cat"]) == ["A cat", "cat"]


def test_emoji_that_lie_in_files_are_found_by_their_code_points(tmp_path: Path) -> None:
    """Whether or not the file's name has the sign for `as a picture`, fe0f; what Unicode does not list is left out."""
    names, assets = tmp_path / "names" / "en", tmp_path / "set" / "assets"
    names.mkdir(parents=True)
    assets.mkdir(parents=True)
    entries = [
        {"hexcode": "1F415", "label": "dog", "group": 3, "tags": ["pet"]},
        {"hexcode": "2615", "label": "hot beverage", "group": 4, "tags": []},
        {"hexcode": "1F3FB", "label": "light skin tone", "tags": []},
    ]
    (names / "data.json").write_text(json.dumps(entries), encoding="utf-8")
    for name in ("1f415", "2615-fe0f", "1f3fb", "e000"):
        Image.new("RGBA", (8, 8), "red").save(assets / f"{name}.webp")
    dog, coffee = emoji.files(tmp_path / "set", tmp_path / "names")
    assert (dog.id, dog.captions[1], dog.concept) == ("1F415/1f415", "dog", "U+1F415")
    assert (coffee.drawing, coffee.concept) == (assets / "2615-fe0f.webp", "U+2615")


def test_a_sketch_is_black_where_its_row_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "drawings"
    folder.mkdir(parents=True)
    row = np.zeros((28, 28))
    row[:14] = 1
    with gzip.open(folder / "Hot dog.ndjson.gz", "wt") as file:
        file.writelines(f"{json.dumps(row.ravel().tolist())}\n" for _ in range(40))
    pairs = list(symbols.sketches(tmp_path))
    assert len(pairs) == 30
    assert len({pair.id for pair in pairs}) == 30
    assert {pair.concept for pair in pairs} == {"sketch:Hot dog"}
    assert isinstance(pairs[0].drawing, Image.Image)
    pixels = np.asarray(pairs[0].drawing)
    assert pixels.shape == (64, 64)
    assert pixels[:30].max() <= 8
    assert pixels[34:].min() >= 247


def test_an_emoji_is_named_by_its_cldr_name_and_keywords_that_can_be_seen() -> None:
    entry = {"label": "flag: Chad", "hexcode": "1F1F9-1F1E9", "tags": ["TD", "flag", "lol"]}
    assert emoji.captions(entry) == ("flag of Chad", "flag of Chad", "flag of Chad emoji", "flag of Chad, flag")
    keycap = {"label": "keycap: 3", "hexcode": "33"}
    assert emoji.captions(keycap)[0] == "keycap 3"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("run_2_,_to", "to run"),
        ("country_The_Gambia", "map of the Gambia"),
        ("flag_Chad", "flag of Chad"),
        ("apple_3a", "apple"),
    ],
)
def test_mulberry_symbols_are_called_what_they_show(stem: str, name: str) -> None:
    assert symbols.mulberry_name(stem) == name


@pytest.mark.parametrize(("stem", "name"), [("FruitFly-2", "fruit Fly"), ("DNA_icon", "DNA"), ("Mouse_01", "mouse")])
def test_bioicons_are_called_by_their_files(stem: str, name: str) -> None:
    assert symbols.bioicon_name(stem) == name


def test_clip_art_is_called_by_its_title_and_tags() -> None:
    svg = (
        "<svg><metadata><dc:title>Hot Dog</dc:title><dc:creator><dc:title>Jane</dc:title></dc:creator>"
        "<rdf:li>sausage, food</rdf:li><rdf:li>unsorted</rdf:li>"
        '<cc:license rdf:resource="http://web.resource.org/cc/PublicDomain"/></metadata></svg>'
    )
    known = clip_art.about(svg)
    assert (known.title, known.author, known.licence) == ("Hot Dog", "Jane", "public domain")
    captions = clip_art.captions_of("animals/hot_dog_01.svg", known, WORDS, untitled=False)
    assert captions == (
        "hot dog, sausage, food, animals",
        "hot dog",
        "hot dog, sausage, food, animals",
    )


@pytest.mark.parametrize(
    ("title", "keywords", "main"),
    [
        ("gold theme", [], "red house"),  # a collection's title: the file's name
        ("casa rossa", ["house", "red"], "house, red"),  # not English: the keywords
        ("casa rossa", ["house"], ""),  # one keyword says too little
    ],
)
def test_clip_art_without_a_title_of_its_own(title: str, keywords: list[str], main: str) -> None:
    known = clip_art.About(title=title, author="Jane Doe", keywords=keywords, licence="")
    captions = clip_art.captions_of("unsorted/red_house_jane_do_01.svg", known, WORDS, untitled=False)
    assert "".join(captions[:1]) == main


def test_playing_cards_and_flags_are_named_by_their_place() -> None:
    known = clip_art.About(title="", author="", keywords=["flag"], licence="")
    (card, *_) = clip_art.captions_of("games/cards/white/white_h_k.svg", known, WORDS, untitled=False)
    (flag, *_) = clip_art.captions_of("signs/flags/africa/chad.svg", known, WORDS, untitled=False)
    assert (card, flag) == ("king of hearts, playing card", "flag of Chad")


def test_pictures_are_put_on_white_cropped_and_fitted(tmp_path: Path) -> None:
    ink = Image.new("RGBA", (400, 400))
    ink.paste((255, 0, 0, 255), (100, 200, 300, 300))
    assert drawn_box(square("red"), margin=0) == (16, 16, 48, 48)
    picture = drawn(ink, crop=True)
    assert picture is not None and picture.size == (64, 35)  # of 218 x 118: 4 % of 200, and 1, on each side
    assert picture.getpixel((0, 0)) == (255, 255, 255) and picture.getpixel((32, 16)) == (255, 0, 0)
    assert fitted(square("red", 32)).size == (32, 32) and fitted(square("red", 32), enlarge=True).size == (64, 64)


def test_what_shows_nothing_is_passed_over(tmp_path: Path) -> None:
    stripe = Image.new("RGBA", (400, 400))
    stripe.paste((255, 0, 0, 255), (0, 200, 400, 210))
    assert drawn(stripe) is not None and drawn(stripe, crop=True) is None
    assert drawn(Image.new("RGB", (64, 64), "white")) is None and drawn(tmp_path / "missing.svg") is None


def test_tiles_are_staged_pixel_by_pixel(tmp_path: Path) -> None:
    folder = tmp_path / "releases/Nov-2015/mon/animals"
    folder.mkdir(parents=True)
    tile = Image.new("RGBA", (32, 32))
    tile.paste((0, 0, 255, 255), (4, 0, 32, 32))
    for name in ("bat2.png", "bat_overlay.png"):
        tile.save(folder / name)
    (sample,) = staged(tmp_path, "tiles", *symbols.crawl_tiles(tmp_path), style="pixel-art")
    pixels = np.asarray(Image.open(io.BytesIO(sample.picture)).convert("RGB"))
    assert pixels.shape == (64, 64, 3) and (pixels[:, :8] == 255).all() and (pixels[:, 8:] == (0, 0, 255)).all()
    assert sample.key == "tiles_00000" and sample.members["txt"] == b"bat, animal, monster"
    assert sample.facts == {
        "captions": ["bat, animal, monster", "bat", "pixel art bat", "bat, monster, pixel art"],
        "source": "tiles",
        "licence": "CC0-1.0",
        "style": "pixel-art",
        "id": "mon/animals/bat2.png",
    }


def test_an_icon_set_is_drawn_black_on_white(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="resvg_py draws SVG; pip install resvg_py")
    half = '<path fill="currentColor" d="M0 0h8v16H0z"/>'
    found = {"half-full": {"body": half}, "bare": {"body": ""}, "gone": {"body": half, "hidden": True}}
    (tmp_path / "icons.json").write_text(json.dumps({"icons": found}))
    counted = pack.stage(icons.by_name(tmp_path), "tiny", a_source(), tmp_path / "tiny.tar")
    assert counted == (1, 1)  # the bare one is blank
    (sample,) = pack.read_staged(tmp_path / "tiny.tar")
    pixels = np.asarray(Image.open(io.BytesIO(sample.picture)).convert("L"))
    assert pixels.shape == (64, 64) and (pixels[:, :31] < 8).all() and (pixels[:, 33:] > 247).all()
    assert sample.facts["captions"] == ["half full", "half full icon"]


def test_of_an_icon_package_only_one_style_is_taken_without_brands_and_variants(tmp_path: Path) -> None:
    names = ("hot-dog-line", "hot-dog-bold", "hot-dog-2-line", "google-line", "bread-off-line", "file-text-line")
    listed = {name: {"body": f'<path d="M{place} 0h8v16H0z"/>'} for place, name in enumerate(names)}
    (tmp_path / "icons.json").write_text(json.dumps({"icons": listed}))
    (icon,) = icons.of_style("(.+)-line", tmp_path)
    assert icon.id == "hot-dog-line" and set(icon.captions) == {"hot dog", "hot dog icon"}


def test_the_tags_of_an_icon_go_into_two_captions_without_notes_of_its_makers(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    listed = '{ name: "speaker-high", categories: [e.MEDIA], tags: ["*updated*", "music", "audio", "volume", "sound"] }'
    (tmp_path / "dist" / "index.mjs").write_text(listed)
    (icon,) = icons.phosphor(tmp_path)
    assert icon.captions == (
        "speaker high, music, audio, volume",
        "speaker high",
        "speaker high icon",
        "speaker high, sound",
    )


def test_of_equal_pictures_the_one_with_the_shortest_caption_stays(tmp_path: Path) -> None:
    flags = (a_pair("BV", square("red"), "flag of Bouvet Island"), a_pair("NO", square("red"), "flag of Norway"))
    samples = staged(tmp_path, "flags", *flags, a_pair("TD", square("blue"), "flag of Chad"))
    assert [sample.facts["id"] for sample in pack.without_equal_pictures(samples)] == ["NO", "TD"]


def test_kept_out_pictures_are_never_trained_on_under_any_id(tmp_path: Path) -> None:
    drawn = square("red")
    drawn.putpixel((40, 40), (200, 0, 0))
    samples = {
        "openclipart": staged(
            tmp_path,
            "openclipart",
            a_pair("kept.svg", square("red"), "a red square"),
            a_pair("again.svg", square("red"), "square"),
            a_pair("nearly.svg", drawn, "square with a spot"),
            a_pair("other.svg", square("red", at=(0, 0)), "square in a corner"),
            a_pair("blue.svg", square("blue"), "blue square"),
        ),
        "openmoji": staged(tmp_path, "openmoji", a_pair("1F7E9", square("green"), "green square")),
    }
    groups = pack.split(samples, {"openmoji"}, {("openclipart", "kept.svg")})
    ids = {name: [sample.facts["id"] for sample in group] for name, group in groups.items()}
    assert ids == {"clip-art": ["kept.svg"], "openmoji": ["1F7E9"], "train": ["other.svg", "blue.svg"]}


def test_the_list_of_kept_out_clip_art_names_its_sources() -> None:
    ids = build.kept_out_ids()
    assert len(ids) == 268 and {source for source, _ in ids} == {"openclipart", "stamps"}
    assert not any(SOURCES[source].held_out for source, _ in ids)


def test_an_interrupted_build_goes_on_and_a_finished_source_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Path
) -> None:
    calls: list[str] = []

    def pairs() -> Iterator[pair.Pair]:
        calls.append("made")
        yield a_pair("a", square("red"), "red square")
        if len(calls) == 1:
            raise KeyboardInterrupt
        yield a_pair("b", square("blue"), "blue square")

    monkeypatch.setitem(SOURCES, "tiny", a_source(pairs))
    with pytest.raises(KeyboardInterrupt):
        build.staged("tiny", SOURCES["tiny"], tmp_path, None, label="tiny")
    assert not list((tmp_path / "staged").iterdir())
    for _ in range(2):
        build.staged("tiny", SOURCES["tiny"], tmp_path, None, label="tiny")
    assert len(calls) == 2
    for _ in range(2):  # a second build replaces the shards of the first
        build.packed(["tiny"], tmp_path, words)
        assert [path.name for path in (tmp_path / "train").iterdir()] == ["train-000000.tar"]
    source = open_source(tmp_path / "train")
    assert sorted(source.sample(index).captions[0] for index in range(len(source))) == ["blue square", "red square"]
    attribution = (tmp_path / "ATTRIBUTION.md").read_text()
    assert "## tiny\n\n2 pairs, from " in attribution and "- CC0-1.0: 2\n" in attribution


def test_a_repository_is_fetched_at_its_commit_or_not_at_all(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    repository = tmp_path / "snapshots" / "jane+icons"
    repository.mkdir(parents=True)
    for name in ("a.svg", "b [1].svg"):
        (repository / name).write_text("<svg/>")
    git = ["git", "-c", "user.name=Jane", "-c", "user.email=jane@example.org", "-C", str(repository)]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Icons"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (folder,) = fetched([GitHub("jane/icons", commit)], tmp_path / "good", tmp_path / "snapshots")
    assert sorted(path.name for path in folder.iterdir()) == ["a.svg", "b [1].svg"]
    (part,) = fetched([GitHub("jane/icons", commit, ("b [1].svg",))], tmp_path / "part", tmp_path / "snapshots")
    assert [path.name for path in part.iterdir()] == ["b [1].svg"]
    with pytest.raises(PackageError, match="git fetch"):
        fetched([GitHub("jane/icons", "0" * 40)], tmp_path / "bad", tmp_path / "snapshots")
    assert not list((tmp_path / "bad" / "github").iterdir())


def test_a_missing_program_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(packages.PackageError, match=r"npm is not installed; install Node\.js"):
        fetched([Npm("tiny@1.0.0")], tmp_path, None)


def test_photos_are_taken_evenly_from_the_classes_and_kept_as_jpeg(tmp_path: Path) -> None:
    for name in ("euphonium", "cougar_face", "Faces_easy"):
        (tmp_path / "101_ObjectCategories" / name).mkdir(parents=True)
        for index in range(62 if name == "euphonium" else 1):
            square("red").save(tmp_path / "101_ObjectCategories" / name / f"image_{index:04d}.jpg")
    samples = staged(tmp_path, "caltech101", *photos.caltech101(tmp_path), style="photo")
    concepts = [sample.facts["concept"] for sample in samples]
    assert concepts == ["caltech101:cougar_face"] + 60 * ["caltech101:euphonium"]
    assert samples[0].facts["captions"] == ["face of a cougar", "a photo of a face of a cougar"]
    assert samples[1].facts["captions"] == ["euphonium", "a photo of a euphonium"]
    assert "jpg" in samples[0].members


def test_listed_photos_bring_their_captions_and_credit(tmp_path: Path) -> None:
    found = list(SOURCES["photo-book"].read(tmp_path))
    assert len(found) == 155 and all(pair.captions[0] and pair.licence for pair in found)
    assert found[0].id.startswith("openstax/osbooks-introduction-anthropology/media/")
    (daisy, *_) = SOURCES["flowers"].read(tmp_path)
    assert (daisy.captions, daisy.concept, daisy.author) == (("daisy flower",), "flowers:daisy", "mario")


def test_the_held_out_book_and_the_pictures_of_other_tests_are_never_listed_for_training() -> None:
    trained = [name for name, source in SOURCES.items() if not source.held_out]
    books = {repository for name in trained for repository, _ in photos.listed(name)}
    assert len(books) == 21 and not any("anthropology" in book for book in books)
