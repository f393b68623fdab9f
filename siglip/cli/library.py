"""Look after a library of pictures.

  status          what it holds (this is done without a word, too)
  broken          files that could not be decoded, and why
  check           read everything against its checksums, mend what can be
  prune           forget pictures whose files are gone, and vectors of
                  models that answer no longer
  forget FOLDERS  forget folders or files, and pictures that lie nowhere else

No picture file is ever changed or deleted. With --dry-run the library is not
changed either. `check` ends with exit code 3 if something was damaged.

for example:
  siglip library
  siglip library check --json
  siglip library prune --dry-run
"""

import argparse
from dataclasses import asdict

from siglip.cli import hits, inputs, output
from siglip.errors import LibraryError

_ACTIONS = ("status", "broken", "check", "prune", "forget")
_CHANGING = ("check", "prune", "forget")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "siglip library [status | broken | check | prune] [--library DIR] [...]\n"
        "       siglip library forget FOLDERS... [--library DIR] [...]"
    )
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="status", metavar="ACTION", help="see above")
    parser.add_argument("folders", nargs="*", metavar="FOLDERS", help="what to forget")
    hits.add_library_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="change nothing, tell what would be done")
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    action = arguments.action
    if bool(arguments.folders) != (action == "forget"):
        raise inputs.UsageError("`forget` takes folders, and the other actions take none")
    if arguments.dry_run and action not in _CHANGING:
        raise inputs.UsageError(f"{action} changes nothing; leave --dry-run out")
    form = output.form_of(arguments)
    with hits.open_library(arguments) as library:
        if action == "status":
            output.print_record(form, asdict(library.status()))
        elif action == "broken":
            columns = [output.Column("path", library.broken()), output.Column("reason", library.broken().values())]
            report = output.Report(form, columns, key="broken", head={})
            for path, reason in library.broken().items():
                report.add({"path": path, "reason": reason}, [[path, reason]])
            report.close()
        elif action == "check":
            mended, hopeless = library.check(dry_run=arguments.dry_run)
            if hopeless:
                raise LibraryError(
                    f"{'; '.join(hopeless)}; move the folder away and index anew: your pictures are not in it"
                )
            output.print_record(form, {"sound": not mended, "damaged": mended, "dry_run": arguments.dry_run})
            hits.tell_notes(library)
            return 3 if mended else 0
        else:
            folders = arguments.folders
            if action == "prune":
                count = library.prune(dry_run=arguments.dry_run)
            else:
                count = sum(library.forget(folder, dry_run=arguments.dry_run) for folder in folders)
            output.print_record(form, {"forgotten": count, "dry_run": arguments.dry_run})
        hits.tell_notes(library)
    return 0
