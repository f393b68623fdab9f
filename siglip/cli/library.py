"""Look after a library of pictures.

  status          what it holds (this is done without a word, too)
  broken          files that could not be decoded, and why
  check           read everything against its checksums, mend what can be
  prune           forget pictures whose files are gone, and vectors of
                  models that answer no longer
  forget FOLDERS  forget folders or files, and pictures that lie nowhere else
  export DIR      write vectors and paths in the layout of clip-retrieval:
                  img_emb/img_emb_0.npy and metadata/metadata_0.parquet
  import PATH     take in vectors of the library's model, without embedding:
                  such a folder, or what `siglip embed` wrote

No picture file is ever changed or deleted. With --dry-run the library is not
changed either. `check` ends with exit code 3 if something was damaged.

for example:
  siglip library
  siglip library check --json
  siglip library prune --dry-run
  siglip library export vectors --json
"""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from siglip.cli import hits, inputs, output
from siglip.errors import LibraryError

if TYPE_CHECKING:
    from siglip.search import Library

_ACTIONS = ("status", "broken", "check", "prune", "forget", "export", "import")
_WITH_PATHS = ("forget", "export", "import")
_CHANGING = ("check", "prune", "forget")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "siglip library [status | broken | check | prune] [--library DIR] [...]\n"
        "       siglip library (forget PATHS... | export DIR | import PATH) [...]"
    )
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="status", metavar="ACTION", help="see above")
    parser.add_argument("paths", nargs="*", metavar="PATHS", help="what to forget, write or take in")
    hits.add_library_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="change nothing, tell what would be done")
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    action = arguments.action
    if bool(arguments.paths) != (action in _WITH_PATHS) or (action != "forget" and len(arguments.paths) > 1):
        raise inputs.UsageError("`forget` takes paths, `export` and `import` take one, and the other actions take none")
    if arguments.dry_run and action not in _CHANGING:
        raise inputs.UsageError(f"--dry-run is for {', '.join(_CHANGING)}; leave it out with {action}")
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
        elif action == "export":
            folder = arguments.paths[0]
            output.print_record(form, {"folder": folder, "rows": library.export_vectors(folder)})
        elif action == "import":
            _import(library, arguments.paths[0], form)
        else:
            if action == "prune":
                count = library.prune(dry_run=arguments.dry_run)
            else:
                count = sum(library.forget(folder, dry_run=arguments.dry_run) for folder in arguments.paths)
            output.print_record(form, {"forgotten": count, "dry_run": arguments.dry_run})
        hits.tell_notes(library)
    return 0


def _import(library: "Library", path: str, form: output.Form) -> None:
    with output.progress(0, "row") as done:
        report = library.import_vectors(path, progress=output.from_totals(done))
    for note in report.notes:
        output.say(note)
    record = asdict(report)
    del record["notes"]
    output.print_record(form, {"path": path, **record})
