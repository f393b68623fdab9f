"""Open Clip Art and Tux Paint's stamps, from Debian -> pairs: captions from what their authors wrote about them."""

import html
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pair import Pair, with_tags, words

# the same drawings once more, stars that differ in the number of their points only, and swatches
_UNWANTED = re.compile(r"/duplicates/|/star_\d+pt|/gradients/")
# a title on so many files with different names is the title of a collection
_COLLECTION = 5
_TEMPLATE_TITLE = re.compile(
    r"etiquette|gold theme|plastik|pc connectors|clipart by|part of the|icon collection|various clipart|svg theme|"
    r"gradient collection|iconset|untitled|^test$|drawing$|sodipodi|inkscape|open clip art",
    re.IGNORECASE,
)
_THEME_PREFIX = re.compile(r"^(aiga|gnome(-mime(-application)?|-fs|-dev)?|gtk(-stock)?|bb|mime|stock|\d+)[-_]")
# keywords and names that do not tell one picture from another
_SAYS_LITTLE = re.compile(
    r".*(0x|hash).*|\d+|action|stock|applications?|mime types|(etiquette|flat|gold) theme|gnome|devices?|contour|"
    r"filesystems?|mimetype|lemon theme( icon)?|new|general|design|black and white|clip|art|download|free|logo icon|"
    r"unsorted|theme|icons?|clip ?art|svg|png|miscellany|iconset|collection|image|remix|page|openclipart|vector|"
    r"colou?r|symbol|none|other|misc|duplicates|various|stars shapes|test|sign|(united nations|un) member"
)
_FOLDER = re.compile(
    "animals|birds|mammals|food|fruit|vegetables|flowers|plants|trees|buildings|homes|furniture|tools|weather|sports|"
    "music|toys|games|people|science|astronomy|medicine|transportation|telephone|books|clothing|beverages|desserts|bugs|"
    "fish|arrows|clocks|christmas|halloween|easter|chess|cards|boating|electronics|geography|religion|party|containers|"
    "reptiles|insects|aircraft|cars|alcohol|flowchart|faces|signs|flags"
)
_NOT_IN_DICTIONARY = {
    "cd", "dna", "dvd", "emoticon", "firewire", "gnome", "kde", "led", "linux", "pc", "smiley", "tangram", "tux", "tv",
    "uk", "usa", "usb", "webcam", "www",
}  # fmt: skip
_CARD = re.compile(r"cards/.*_([hscd])_(\d+|[akqj])\.svg$")
_SUITS = {"h": "hearts", "s": "spades", "c": "clubs", "d": "diamonds"}
_RANKS = {"a": "ace", "1": "ace", "k": "king", "q": "queen", "j": "jack"}


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What an SVG file's metadata say."""

    title: str
    author: str
    keywords: list[str]
    licence: str


def open_clip_art(package: Path, dictionary: Path) -> Iterator[Pair]:
    """The Debian package openclipart-svg; `dictionary` is wamerican-large, to tell English from other words."""
    root = package / "usr/share/openclipart/svg"
    vocabulary = _vocabulary(dictionary)
    paths = [path for path in sorted(root.rglob("*.svg")) if not (path.is_symlink() or _UNWANTED.search(str(path)))]
    abouts = {path: about(path.read_text("utf-8", "replace")) for path in paths}
    names = defaultdict(set)
    for path, known in abouts.items():
        names[_letters(known.title)].add(_letters(name_of_file(path.stem, known.author)))
    collections = {title for title, stems in names.items() if len(stems) >= _COLLECTION}
    for path, known in abouts.items():
        file = path.relative_to(root).as_posix()
        captions = captions_of(file, known, vocabulary, untitled=_letters(known.title) in collections)
        if captions:
            yield Pair(id=file, drawing=path, captions=captions, licence=known.licence, author=known.author)


def captions_of(file: str, known: About, vocabulary: set[str], *, untitled: bool) -> tuple[str, ...]:
    """Name with three tags, name, name with six tags. () where nothing English is known.

    The name is the title, or that of the file if the title is a collection's (`untitled`), or a keyword if neither is
    English.
    """
    folders, stem = file.split("/")[:-1], file.rpartition("/")[2].removesuffix(".svg")
    title = "" if untitled or _TEMPLATE_TITLE.search(known.title) else known.title
    name = re.sub(
        r"(?<=[^\W\d])[\s(#]*\d+\)?$", "", words((title or name_of_file(stem, known.author)).removesuffix(".svg"))
    )
    tags = english_keywords(known.keywords, vocabulary)
    card = _CARD.search(file)
    if card:
        name, tags = f"{_RANKS.get(card[2], card[2])} of {_SUITS[card[1]]}", ["playing card"]
    elif "flags" in folders and name:
        tags = [tag for tag in tags if "flag" not in tag and tag != "sign"]
        name = name if "flag" in name.lower() else f"flag of {name.title() if name.islower() else name}"
    elif share_known(name, vocabulary) < 0.6 or _SAYS_LITTLE.fullmatch(name.lower()):
        if len(tags) < 2:
            return ()
        name, *tags = tags
    if share_known(name, vocabulary) == 1 and "flags" not in folders:
        name = name if name.isupper() and len(name) < 5 else name.lower()
    tags += [words(folder) for folder in reversed(folders) if _FOLDER.fullmatch(folder)][:1]
    if file.startswith("computer/icons"):
        tags = [tag for tag in tags if tag != "computer"] + ["computer icon"]
    return with_tags(name[:90], tags, 3), name, with_tags(name, tags, 6)


def about(svg: str) -> About:
    """Of the RDF in an SVG file."""
    metadata = "".join(re.findall("<metadata.*?</metadata>", svg, re.DOTALL)[:1])
    creator = "".join(re.findall("<dc:creator>.*?</dc:creator>", metadata, re.DOTALL)[:1])
    work = re.sub(r"<dc:(creator|rights|publisher|contributor)>.*?</dc:\1>", "", metadata, flags=re.DOTALL)
    licence = "".join(re.findall(r'<cc:license\s+rdf:resource="(.*?)"', metadata)[:1])
    return About(
        title=_field(work, "dc:title"),
        author=_field(creator, "dc:title"),
        keywords=[_plain(text) for text in re.findall("<rdf:li[^>]*>(.*?)</rdf:li>", metadata, re.DOTALL)],
        licence=licence if licence and "PublicDomain" not in licence else "public domain",
    )


def name_of_file(stem: str, author: str) -> str:
    """`hot_dog_jane_doe_01`, `Jane Doe` -> `hot dog`: numbers and the author, even if cut short, are left out."""
    parts = words(re.sub(r"_hash.*$|_\d+$", "", _THEME_PREFIX.sub("", stem))).split()
    by = _letters(author)
    for cut in range(1, len(parts)):
        tail = _letters("".join(parts[cut:]))
        if len(tail) > 1 and by and (by.startswith(tail) or (len(by) > 3 and tail.startswith(by[:8]))):
            parts = parts[:cut]
            break
    spaced = re.sub("(?<=[a-z])(?=[A-Z])", " ", " ".join(parts))
    return re.sub(r"(?<=[A-Za-z]) ?\d+[a-z]?$", "", spaced).strip()


def english_keywords(keywords: list[str], vocabulary: set[str]) -> list[str]:
    """Lower-cased, split at commas; those that are not English or say nothing of the picture are left out."""
    parts = [words(part).lower() for keyword in keywords for part in re.split("[,;/]", keyword)]
    fit = [part for part in parts if 1 < len(part) <= 30 and not _SAYS_LITTLE.fullmatch(part)]
    return list(dict.fromkeys(part for part in fit if share_known(part, vocabulary) == 1))


def share_known(text: str, vocabulary: set[str]) -> float:
    """Share of the words that are in the vocabulary, from 0 to 1; 0 without words."""
    found = re.findall(r"[^\W\d_]+", text.lower().replace("'", ""))
    return sum(word in vocabulary or word.removesuffix("s") in vocabulary for word in found) / max(1, len(found))


def stamps(package: Path) -> Iterator[Pair]:
    """The Debian package tuxpaint-stamps-default; the caption is the first line of the .txt beside a stamp."""
    root = package / "usr/share/tuxpaint/stamps"
    for drawing in sorted(path for path in root.rglob("*") if path.suffix in (".svg", ".png")):
        text = drawing.with_suffix(".txt")
        lines = text.read_text("utf-8-sig", "replace").splitlines() if text.exists() else []
        if lines and not drawing.stem.endswith("_mirror"):
            caption = re.sub(r"^(An?|The|Some) ", lambda article: article[0].lower(), lines[0].strip().rstrip("."))
            folders = [words(folder) for folder in drawing.relative_to(root).parts[:-1] if folder != "cartoon"]
            is_cartoon = drawing.suffix == ".svg" or "cartoon" in drawing.parts
            yield Pair(
                id=drawing.relative_to(root).as_posix(),
                drawing=drawing,
                captions=(caption, re.sub(r"^(an?|the|some) ", "", caption), with_tags(caption, reversed(folders), 2)),
                style="cartoon" if is_cartoon else "photo or drawing",
            )


def _vocabulary(dictionary: Path) -> set[str]:
    (path,) = (dictionary / "usr/share/dict").glob("american-english*")
    return _NOT_IN_DICTIONARY | {word.strip().lower() for word in path.read_text("utf-8").splitlines()}


def _field(xml: str, name: str) -> str:
    return _plain("".join(re.findall(f"<{name}>(.*?)</{name}>", xml, re.DOTALL)[:1]))


def _plain(text: str) -> str:
    return html.unescape(html.unescape(re.sub("<[^>]+>", "", text))).strip()


def _letters(text: str) -> str:
    return re.sub(r"[\W\d_]", "", text.lower())
