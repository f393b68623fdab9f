"""Say in words what is in each picture.

The model is a PaliGemma, which writes; a SigLIP model compares and cannot.
The probability is that of the whole text. With --write captions go into files
beside the pictures: photo.txt, photo.jpg.xmp (dc:description, which photo
managers read), or one captions.jsonl a folder. Files that are there stay as
they are, unless --overwrite is given.

for example:
  siglip caption photo.jpg --model google/paligemma2-3b-mix-224
  siglip caption photos --model my-captioner --beams 3 --sheet sheet.png
  siglip caption photos --model my-captioner --write xmp
"""

import argparse
import json
from pathlib import Path
from xml.sax.saxutils import escape

from siglip.cli import inputs, output, sheet, writing
from siglip.errors import Failure
from siglip.files import write_text

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:description>
    <rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt>
   </dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip caption IMAGES... --model MODEL [...]"
    inputs.add_image_arguments(parser)
    parser.add_argument("--prompt", type=inputs.text, default="caption en", help="(default: 'caption en')")
    writing.add_arguments(parser)
    parser.add_argument("--write", choices=["txt", "xmp", "jsonl"], help="also write files beside the pictures")
    parser.add_argument("--overwrite", action="store_true", help="replace such files where they are already there")
    sheet.add_argument(parser)
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.overwrite and not arguments.write:
        raise inputs.UsageError("--overwrite replaces what --write writes; give --write too")
    names, failed = inputs.image_names(arguments.images, null=arguments.null)
    total = len(names) + len(failed)
    captioner = writing.load(arguments)
    form = output.form_of(arguments)
    report = output.Report(
        form,
        [output.Column("image", names), output.Column("caption", width=48), output.Column("probability")],
        key="images",
        head={"model": arguments.model, "prompt": arguments.prompt},
    )
    captions: list[tuple[str, str]] = []
    options = {"num_beams": arguments.beams, "max_new_tokens": arguments.max_tokens}
    results = writing.each(
        names, failed, lambda some: captioner.write(some, arguments.prompt, **options), bar=form != "table"
    )
    for name, result in results:
        report.add(
            {"image": name, "caption": result.text, "probability": result.probability},
            [(name, result.text, result.probability)],
        )
        captions.append((name, result.text))
    unreadable = len(failed)
    if arguments.write:
        failed += _write(captions, arguments.write, overwrite=arguments.overwrite)
    report.close(failed)
    if captions and arguments.sheet:
        shown = [(name, [caption]) for name, caption in captions[: sheet.MOST]]
        sheet.draw(shown, arguments.sheet, total - unreadable)
    return output.report_failures(failed, total)


def _write(captions: list[tuple[str, str]], form: str, *, overwrite: bool) -> list[Failure]:
    """Write the files; what could not be written is returned, and the others are there."""
    files: dict[Path, str] = {}
    failed: list[Failure] = []
    for name, caption in captions:
        picture = Path(name)
        if not picture.exists():
            failed.append(Failure(name, "is no file here, so no file is written beside it"))
            continue
        if form == "jsonl":
            file = picture.parent / "captions.jsonl"
            line = json.dumps({"image": picture.name, "caption": caption}, ensure_ascii=False) + "\n"
            files[file] = files.get(file, "") + line
            continue
        file = picture.with_suffix(".txt") if form == "txt" else picture.with_name(f"{picture.name}.xmp")
        if file in files:
            failed.append(Failure(name, f"{file} is already that of another picture of this name"))
        else:
            files[file] = caption + "\n" if form == "txt" else _XMP.format(escape(caption))
    written = 0
    for file, text in files.items():
        if file.exists() and not overwrite:
            failed.append(Failure(str(file), "is already there and was left as it is; --overwrite replaces it"))
            continue
        write_text(file, text)
        written += 1
    output.say(f"{written} files written")
    return failed
