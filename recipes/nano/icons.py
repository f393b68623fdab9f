"""Icon packages of npm -> pairs: captions from the names, keywords and categories that come with the icons."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pair import Pair, with_tags, words

# marks on another icon (a plus, an arrow) and shapes of interfaces: too many, and hardly to be told apart
_TABLER_VARIANT = re.compile(
    r"-(off|plus|minus|x|check|cog|code|up|down|pin|question|share|star|search|exclamation|dollar|bolt|cancel|heart|"
    r"pause|left|right|\d+)$|^(letter|number|square|circle|hexagon|device|file|folder|brand|layout|align|arrow|box|"
    r"chevron|caret|sort|border|text|badge|user|calendar|clock|battery|signal|wifi|cell|template|shape)-"
)
_MDI_VARIANT = re.compile(
    r"outline|-box$|-circle$|-off$|-variant$|-multiple$|-(plus|minus|check|remove|edit|lock|search|sync|refresh|cog|"
    r"alert|star|heart|settings|clock|key|arrow-\w+|cancel|question|eye)$|^arrow-.*-(thin|thick|bold)|^(alpha|numeric|"
    r"format|file|folder|account|calendar|battery|wifi|signal|vector|page|table|border|network|server|database|email|"
    r"language|message|comment|chat|cellphone|phone|gamepad)-"
)
_BRAND = re.compile(r"logo|google|apple-|facebook|twitter|instagram|spotify|android|paypal")
_HEALTH_VARIANT = re.compile(r"outline|24px|negative|^[a-z0-9]$|-xs$")
# categories that say what is seen; of icon-park only these are taken
_PARK = {
    "Animals": "animal", "Baby": "baby", "Charts": "chart", "Clothes": "clothes", "Constellation": "zodiac",
    "Emoji": "emoji", "Energy": "energy", "Foods": "food", "Game": "game", "Hands": "hand", "Hardware": "hardware",
    "Health": "health", "Industry": "industry", "Arrows": "arrow", "Makeups": "makeup", "Measurement": "measurement",
    "Money": "money", "Music": "music", "Peoples": "people", "Sports": "sport", "Time": "time", "Travel": "travel",
    "Weather": "weather",
}  # fmt: skip
_HEALTH = {
    "Blood": "blood", "Body": "body part", "Conditions": "medical condition", "Contraceptives": "contraceptive",
    "Devices": "medical device", "Diagnostics": "diagnostics", "Emotions": "emotion", "Exercise": "exercise",
    "Graphs": "chart", "Medications": "medicine", "Nutrition": "nutrition", "People": "people", "Places": "place",
    "Ppe": "protective equipment", "Specialties": "medical specialty", "Vehicles": "vehicle", "Zoonoses": "animal",
}  # fmt: skip


def tabler(package: Path) -> Iterator[Pair]:
    for name, facts in sorted(read_json(package / "icons.json").items()):
        if facts.get("category") != "Brand" and not _TABLER_VARIANT.search(name):
            tags = [words(tag) for tag in map(str, facts.get("tags", [])) if tag.isascii()]
            spoken = re.sub(r"(\D) [2-9]$", r"\1", words(name))
            yield _icon(name, tags, package / "icons" / "outline" / f"{name}.svg", spoken)


def phosphor(package: Path) -> Iterator[Pair]:
    listed = re.compile(r'name: "([^"]+)".*?categories: \[(.*?)\].*?tags: \[(.*?)\]', re.DOTALL)
    for name, categories, tags in listed.findall((package / "dist" / "index.mjs").read_text()):
        if "BRAND" not in categories and not name.endswith("-logo"):
            drawing = package / "assets" / "duotone" / f"{name}-duotone.svg"
            yield _icon(name, [tag for tag in re.findall('"([^"]+)"', tags) if not tag.startswith("*")], drawing)


def mdi(package: Path) -> Iterator[Pair]:
    for facts in sorted(read_json(package / "meta.json"), key=lambda facts: facts["name"]):
        name, kinds = facts["name"], facts["tags"]
        if not (facts["deprecated"] or "Brand / Logo" in kinds or _MDI_VARIANT.search(name)):
            tags = [*map(words, facts["aliases"]), *(re.split(" [/+] ", kind.lower())[0] for kind in kinds)]
            yield _icon(name, tags[:2], package / "svg" / f"{name}.svg")


def lucide(package: Path) -> Iterator[Pair]:
    for name, tags in sorted(read_json(package / "tags.json").items()):
        yield _icon(name, tags, package / "icons" / f"{name}.svg")


def by_name(package: Path) -> Iterator[Pair]:
    """All that an Iconify package shows."""
    for name, svg in sorted(drawings_of(package).items()):
        if not name.startswith("abstract"):
            yield _icon(name, [], svg)


def of_style(style: str, package: Path) -> Iterator[Pair]:
    """Of an Iconify package the icons whose whole name matches `style`, which captures what they are called."""
    for name, svg in sorted(drawings_of(package).items()):
        found = re.fullmatch(style, name)
        if (
            found
            and not _BRAND.search(name)
            and not (_TABLER_VARIANT.search(found[1]) or _MDI_VARIANT.search(found[1]))
        ):
            yield _icon(name, [], svg, words(found[1]))


def _by_category(kinds: dict[str, str], unwanted: re.Pattern[str], package: Path, *, only: bool) -> Iterator[Pair]:
    tags: dict[str, list[str]] = {}
    for category, names in categories_of(package).items():
        for name in names:
            tags.setdefault(name, []).extend([kinds[category]] if category in kinds else [])
    for name, svg in sorted(drawings_of(package).items()):
        if not unwanted.search(name) and (tags.get(name) or not only):
            spoken = re.sub(" (one|two|three|four|five|six|seven|eight)$", "", words(name))
            yield _icon(name, tags.get(name, [])[:2], svg, spoken)


health = partial(_by_category, _HEALTH, _HEALTH_VARIANT, only=False)
park = partial(_by_category, _PARK, re.compile("^$"), only=True)


def flags(package: Path) -> Iterator[Pair]:
    """Flags of flag-icons, with continents and capitals."""
    for country in read_json(package / "country.json"):
        flag = f"flag of {country['name']}"
        continent, capital = country.get("continent"), country.get("capital")
        captions = (f"{flag}, {continent}" if continent else flag, flag, f"{country['name']} flag")
        captions = (*captions, f"{flag}, capital {capital}") if capital else captions
        yield Pair(id=country["code"], drawing=package / country["flag_4x3"], captions=captions)


def _icon(name: str, tags: Sequence[str], drawing: str | Path, spoken: str = "") -> Pair:
    """`spoken` is what the icon is called, if not by its `name`."""
    spoken = spoken or words(name)
    captions = (with_tags(spoken, tags, 3), spoken, f"{spoken} icon", with_tags(spoken, tags[3:], 3))
    return Pair(id=name, drawing=drawing, captions=captions)


def drawings_of(package: Path) -> dict[str, str]:
    """Name -> SVG for all that an Iconify package shows; its icons.json holds the drawings of the whole set."""
    collection = read_json(package / "icons.json")
    drawings = {}
    for name, icon in collection["icons"].items():
        if not icon.get("hidden"):
            box = {"left": 0, "top": 0, "width": 16, "height": 16, **collection, **icon}
            width, height = box["width"], box["height"]
            drawings[name] = (
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{box["left"]} {box["top"]} {width} {height}" width="{width}" height="{height}">'
                f"{icon['body']}</svg>"
            )
    return drawings


def categories_of(package: Path) -> dict[str, list[str]]:
    """Category -> names, for the Iconify packages that have them."""
    path = package / "metadata.json"
    return read_json(path).get("categories", {}) if path.exists() else {}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
