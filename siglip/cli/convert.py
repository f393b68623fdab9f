"""Rewrite a checkpoint in another format; the numbers stay the same to the bit.

SRC is a model name (see `siglip models`), a folder, or a file: a Hugging Face
folder, a big_vision .npz, or an open_clip folder. DST is a folder, and gets the
files that prepare pictures and texts too. A model that is there already is
replaced with --overwrite only. SRC may also be a checkpoint of a training run:
DIR/checkpoints/step-..., DIR/best (by the held-out score), or DIR of a run that
was stopped (its newest).

for example:
  siglip convert nano nano-folder --to huggingface
  siglip convert nano nano-big-vision --to big_vision
  siglip convert nano nano-open-clip --to open_clip
"""

import argparse
import tempfile
from pathlib import Path

from siglip.cli import output
from siglip.releases import check_model_name


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="what to read")
    parser.add_argument("destination", type=Path, metavar="DST", help="the folder to write")
    parser.add_argument("--to", required=True, choices=["huggingface", "big_vision", "open_clip"], help="its format")
    parser.add_argument("--overwrite", action="store_true", help="replace the model that DST holds already")
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    source = Path(arguments.source)
    if not any((place / "checkpoints").is_dir() for place in (source.parent, source.parent.parent)):
        check_model_name(arguments.source)
    from siglip.checkpoints import convert
    from siglip.training.resume import export_checkpoint, find_checkpoint

    found = find_checkpoint(source)
    with tempfile.TemporaryDirectory(prefix="siglip-") as temporary:
        if found is not None:
            export_checkpoint(*found, Path(temporary))
        model = arguments.source if found is None else temporary
        written = convert(model, arguments.destination, arguments.to, overwrite=arguments.overwrite)
    output.print_record(output.form_of(arguments), {"written": str(written), "format": arguments.to})
    return 0
