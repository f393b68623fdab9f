"""Icon sets and flags from npm -> pairs: captions from the names, keywords and categories that come with the icons."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from drawing import from_svg
from iconify import categories_of, drawings_of, read_json
from pair import Pair, with_tags, words


class Icon(NamedTuple):
    """`name` is the caption without tags."""

    id: str
    name: str
    tags: list[str]
    svg: str


def pairs(read: Callable[[Path], Iterator[Icon]], package: Path, licence: str, style: str) -> Iterator[Pair]:
    """All icons that `read` takes out of the package."""
    for icon in read(package):
        named = (with_tags(icon.name, icon.tags, 3), icon.name, f"{icon.name} icon")
        captions = (*named, f"black silhouette of {icon.name}") if style == "icon-glyph" else named
        yield Pair(id=icon.id, picture=from_svg(icon.svg), captions=captions, licence=licence, style=style)


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


def tabler(package: Path) -> Iterator[Icon]:
    for name, facts in sorted(read_json(package / "icons.json").items()):
        path = package / "icons" / "outline" / f"{name}.svg"
        if facts.get("category") != "Brand" and not _TABLER_VARIANT.search(name) and path.exists():
            tags = [words(tag) for tag in map(str, facts.get("tags", [])) if tag.isascii()]
            yield Icon(name, re.sub(r"(\D) [2-9]$", r"\1", words(name)), tags, path.read_text())


def phosphor(package: Path) -> Iterator[Icon]:
    listed = re.compile(r'name: "([^"]+)".*?categories: \[(.*?)\].*?tags: \[(.*?)\]', re.DOTALL)
    for name, categories, tags in listed.findall((package / "dist" / "index.mjs").read_text()):
        path = package / "assets" / "duotone" / f"{name}-duotone.svg"
        if "BRAND" not in categories and not name.endswith("-logo") and path.exists():
            yield Icon(name, words(name), re.findall(r'"([^"*]+)"', tags), path.read_text())


def mdi(package: Path) -> Iterator[Icon]:
    for facts in sorted(read_json(package / "meta.json"), key=lambda facts: facts["name"]):
        name, kinds = facts["name"], facts["tags"]
        if not (facts["deprecated"] or "Brand / Logo" in kinds or _MDI_VARIANT.search(name)):
            tags = [words(alias) for alias in facts["aliases"]] + [
                re.split(" [/+] ", kind.lower())[0] for kind in kinds
            ]
            yield Icon(name, words(name), tags[:2], (package / "svg" / f"{name}.svg").read_text())


def lucide(package: Path) -> Iterator[Icon]:
    for name, tags in sorted(read_json(package / "tags.json").items()):
        path = package / "icons" / f"{name}.svg"
        if path.exists():
            yield Icon(name, words(name), tags, path.read_text())


def game(package: Path) -> Iterator[Icon]:
    for name, svg in sorted(drawings_of(package).items()):
        if not name.startswith("abstract"):
            yield Icon(name, words(name), [], svg)


def flat_color(package: Path) -> Iterator[Icon]:
    for name, svg in sorted(drawings_of(package).items()):
        yield Icon(name, words(name), [], svg)


def _by_category(kinds: dict[str, str], unwanted: re.Pattern[str], package: Path, *, only: bool) -> Iterator[Icon]:
    tags: dict[str, list[str]] = {}
    for category, names in categories_of(package).items():
        for name in names:
            tags.setdefault(name, []).extend([kinds[category]] if category in kinds else [])
    for name, svg in sorted(drawings_of(package).items()):
        if not unwanted.search(name) and (tags.get(name) or not only):
            spoken = re.sub(" (one|two|three|four|five|six|seven|eight)$", "", words(name))
            yield Icon(name, spoken, tags.get(name, [])[:2], svg)


health = partial(_by_category, _HEALTH, _HEALTH_VARIANT, only=False)
park = partial(_by_category, _PARK, re.compile("^$"), only=True)


def flags(package: Path, licence: str) -> Iterator[Pair]:
    """Flags of flag-icons, with continents and capitals."""
    for country in read_json(package / "country.json"):
        flag = f"flag of {country['name']}"
        continent, capital = country.get("continent"), country.get("capital")
        captions = (f"{flag}, {continent}" if continent else flag, flag, f"{country['name']} flag")
        captions = (*captions, f"{flag}, capital {capital}") if capital else captions
        picture = from_svg((package / country["flag_4x3"]).read_text())
        yield Pair(id=country["code"], picture=picture, captions=captions, licence=licence, style="flag")
