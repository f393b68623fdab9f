"""Emoji sets of the Iconify packages -> pairs: captions from the CLDR names and keywords in emojibase-data."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icons import categories_of, drawings_of, read_json
from pair import Pair, shuffling_key, with_tags, words

# keywords that are chat slang or say nothing of the picture
_NOT_SEEN = re.compile(
    "emoji|smiley|face|symbol|sign|ily|bae|xoxo|tbt|omg|bro|goo|uh|oh|hundo|lol|rofl|pfft|smh|tf|wtf|nbd|gr8|yolo|bff|"
    "bday|cuz|lotta|meh|obvi|sus|woke|totes|def|tho|ikr|lmk|btw|brb|ttyl|imo|af|me|you|not|way|here|woah|whoa|wow|hocho|"
    "fyi|idk|tale|feels|things|that|what|no|yes|it|is|be|cray|dang|ugh|yep|nope|omw|gg|strat|down|spin|turn|set"
)


def pairs(icons: Path, names: Path) -> Iterator[Pair]:
    """The emoji of one set. `icons` is an Iconify package, `names` the package emojibase-data."""
    drawings = drawings_of(icons)
    emoji = {plain(entry["hexcode"]): entry for entry in read_json(names / "en" / "data.json") if "group" in entry}
    matched = _matched(read_json(icons / "chars.json"), drawings, emoji)
    for code, drawing in sorted(matched.items()):
        hexcode = emoji[code]["hexcode"]
        if "facing right" not in emoji[code]["label"]:
            yield Pair(
                id=f"{hexcode}/{drawing}",
                drawing=drawings[drawing],
                captions=captions(emoji[code]),
                concept=f"U+{hexcode}",
            )
    outside_unicode = [name for kind, names in categories_of(icons).items() if "Extras" in kind for name in names]
    for drawing in outside_unicode:
        if drawing in drawings and drawing not in matched.values():
            name = words(drawing)
            yield Pair(id=f"extra/{drawing}", drawing=drawings[drawing], captions=(name, f"{name} emoji"))


def files(assets: Path, names: Path) -> Iterator[Pair]:
    """The emoji of a package with one picture for each, named by its code points. `names` is emojibase-data."""
    pictures = {plain(path.stem): path for path in (assets / "assets").iterdir()}
    for entry in read_json(names / "en" / "data.json"):
        code = plain(entry["hexcode"])
        if "group" in entry and "facing right" not in entry["label"] and code in pictures:
            hexcode, picture = entry["hexcode"], pictures[code]
            yield Pair(
                id=f"{hexcode}/{picture.stem}", drawing=picture, captions=captions(entry), concept=f"U+{hexcode}"
            )


def captions(entry: dict[str, Any]) -> tuple[str, ...]:
    """Of an entry of emojibase-data: name and two keywords, the name, `name emoji`, name and six keywords."""
    name = re.sub("^flag: ", "flag of ", entry["label"]).replace("keycap: ", "keycap ")
    name = re.sub("^(man|woman|person|family): ", r"\1, ", re.sub("[\u201c\u201d]", "", name)).replace("\u2019", "'")
    tags = [tag for tag in entry.get("tags", []) if len(tag) > 2 and not _NOT_SEEN.fullmatch(tag.lower())]
    tags = [tag for tag in tags if not (tag.isdigit() or tag.isupper() or re.search(r"[^\w \-']", tag))]
    tags.sort(key=lambda tag: shuffling_key(entry["hexcode"] + tag))
    return with_tags(name, tags, 2), name, f"{name} emoji", ", ".join([name, *tags[:6]])


def plain(hexcode: str) -> str:
    """Without the code points that choose between text and picture, which sets write or leave out."""
    return "-".join(part for part in hexcode.upper().split("-") if part not in ("FE0F", "FE0E"))


def _matched(codes: dict[str, str], drawings: dict[str, str], emoji: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Code -> drawing, each once: as the set's own table says, and otherwise where the names are equal."""
    by_name = {_letters(entry["label"]): code for code, entry in emoji.items()}
    found = {plain(code): drawing for code, drawing in codes.items() if plain(code) in emoji and drawing in drawings}
    for drawing in drawings:
        if drawing not in codes.values() and _letters(drawing) in by_name:
            found.setdefault(by_name[_letters(drawing)], drawing)
    return {code: drawing for drawing, code in {drawing: code for code, drawing in found.items()}.items()}


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
