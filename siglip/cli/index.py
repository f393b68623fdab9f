"""Make folders of pictures searchable, or bring that up to date.

What was indexed before and did not change is not read again. Pictures are
known by their contents: a renamed, moved or copied file costs no embedding.
A folder that is not there, or empty, loses nothing: it may not be mounted.
Without folders, all that were indexed before are looked at. Stop it at any
moment; the next run goes on where it was.

With another --model the library is embedded anew beside the old vectors,
which keep answering until all is done.

for example:
  siglip index samples
  siglip index samples --exclude "*.gif" "raw/*" --prune
  siglip index --dry-run
"""

import argparse
import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from siglip.cli import hits, inputs, output
from siglip.errors import Failure, LibraryError

if TYPE_CHECKING:
    from siglip.search import IndexReport, Library


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip index [FOLDERS...] [--library DIR] [...]"
    parser.add_argument("folders", nargs="*", metavar="FOLDERS", help="searched through; hidden files are left out")
    hits.add_library_argument(parser)
    parser.add_argument(
        "--exclude", nargs="+", metavar="PATTERN", help="names or paths below the folders to leave out; kept for later"
    )
    parser.add_argument("--prune", action="store_true", help="forget pictures whose files are gone")
    parser.add_argument("--dry-run", action="store_true", help="change nothing, tell what would be read")
    parser.add_argument("--watch", action="store_true", help="then wait for changes and index them, until Ctrl-C")
    parser.add_argument("--polite", action="store_true", help="one thread and the lowest priority, for the background")
    output.add_form_arguments(parser)
    inputs.add_model_arguments(parser, named=True)
    parser.add_argument("--model", help="nano, a folder or a hub name (default: that of the library, else nano)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.watch and arguments.dry_run:
        raise inputs.UsageError("--watch changes the library, --dry-run does not; leave one of them out")
    # threads that wait in a loop would take from the decoders, and from whatever else runs here
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if arguments.polite:
        os.environ["OMP_NUM_THREADS"] = "1"
        with contextlib.suppress(OSError, AttributeError):
            os.nice(19)
    with hits.open_library(arguments, arguments.model) as library:
        code = _index(arguments, library, arguments.folders)
        if arguments.watch:
            _watch(arguments, library)
    return code


def _index(arguments: argparse.Namespace, library: "Library", folders: list[str]) -> int:
    with output.progress(0, "file") as done:
        report = library.index(
            folders,
            exclude=arguments.exclude,
            prune=arguments.prune,
            dry_run=arguments.dry_run,
            threads=1 if arguments.polite else None,
            progress=output.from_totals(done),
        )
    for note in report.notes:
        output.say(note)
    _print(arguments, report)
    failed = [Failure(name, reason) for name, reason in report.failed.items()]
    return output.report_failures(failed, max(report.found, len(failed)))


def _print(arguments: argparse.Namespace, report: "IndexReport") -> None:
    record = asdict(report)
    record["seconds"] = round(report.seconds, 3)
    del record["notes"], record["failed"]
    record["failures"] = len(report.failed)
    output.print_record(output.form_of(arguments), record)


def _watch(arguments: argparse.Namespace, library: "Library") -> None:
    from siglip.search.watching import changes

    roots = [Path(folder).expanduser().absolute() for folder in arguments.folders] or list(library.catalogue.roots())
    output.say(f"watching {', '.join(map(str, roots))}; Ctrl-C ends it")
    for changed in changes(roots):
        try:
            _index(arguments, library, [str(root) for root in sorted(changed)])
        except LibraryError as error:
            output.say(f"{error}")  # such as another process that writes: the next change tries again
