"""Say in words what is in each picture.

The model is a PaliGemma, which writes; a SigLIP model compares and cannot. The
built-in nano-caption names clip art and emoji, and is often wrong. The
probability is that of the whole text. With --rerank a SigLIP model orders the
likeliest text and several drawn ones by how well they fit the picture.

With --write captions go into files beside the pictures: photo.txt,
photo.jpg.xmp (dc:description, which photo managers read), or one captions.jsonl
a folder. Files that are there stay as they are, unless --overwrite is given.

for example:
  siglip caption samples
  siglip caption samples/pig.png samples/ladybug.png --beams 3 --jsonl
  siglip caption samples/strawberry.png --rerank nano --samples 9 --json
  siglip caption samples --sheet sheet.png
  siglip caption photos --model google/paligemma2-3b-mix-224 --write xmp
"""

import argparse
import json
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from siglip.cli import inputs, output, sheet, writing
from siglip.errors import Failure
from siglip.files import write_text
from siglip.releases import check_model_name

# characters that XML has no place for
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
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
    parser.usage = "siglip caption IMAGES... [--model MODEL] [...]"
    inputs.add_image_arguments(parser)
    parser.add_argument("--prompt", type=inputs.text, default="caption en", help="(default: 'caption en')")
    writing.add_arguments(parser)
    parser.add_argument(
        "--rerank", metavar="SIGLIP", help="order the likeliest text and drawn ones by this model, such as nano"
    )
    parser.add_argument("--samples", type=inputs.positive, metavar="N", help="--rerank: texts drawn (default: 5)")
    parser.add_argument("--seed", type=int, metavar="N", help="--rerank: other texts for another one (default: 0)")
    parser.add_argument("--write", choices=["txt", "xmp", "jsonl"], help="also write files beside the pictures")
    parser.add_argument("--overwrite", action="store_true", help="replace such files where they are already there")
    sheet.add_argument(parser)
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.overwrite and not arguments.write:
        raise inputs.UsageError("--overwrite replaces what --write writes; give --write too")
    if not arguments.rerank and (arguments.samples, arguments.seed) != (None, None):
        raise inputs.UsageError("--samples and --seed are for what --rerank chooses from; give --rerank too")
    if arguments.rerank and arguments.beams is not None:
        raise inputs.UsageError("--rerank draws texts and --beams searches for the likeliest; give one of the two")
    names, failed = inputs.image_names(arguments.images, null=arguments.null)
    total = len(names) + len(failed)
    open_stream = _stream(arguments)
    form = output.form_of(arguments)
    columns = [output.Column("image", names), output.Column("caption", width=48), output.Column("probability")]
    head = {"model": arguments.model, "prompt": arguments.prompt}
    if arguments.rerank:
        columns.append(output.Column("score"))
        head |= {"rerank": arguments.rerank, "samples": arguments.samples or 5, "seed": arguments.seed or 0}
    report = output.Report(form, columns, key="images", head=head)
    captions: list[tuple[str, str]] = []
    for name, found in writing.each(names, failed, open_stream, bar=form != "table"):
        best = found[0]
        record = {"image": name, "caption": best.text, "probability": best.probability}
        if not arguments.rerank:
            report.add(record, [(name, best.text, best.probability)])
        else:
            report.add(
                {**record, "score": best.score, "candidates": [asdict(item) for item in found]},
                [(name, item.text, item.probability, item.score) for item in found],
            )
        captions.append((name, best.text))
    unreadable = len(failed)
    if arguments.write:
        failed += _write(captions, arguments.write, overwrite=arguments.overwrite)
    report.close(failed)
    if captions and arguments.sheet:
        shown = [(name, [caption]) for name, caption in captions[: sheet.MOST]]
        sheet.draw(shown, arguments.sheet, total - unreadable)
    return output.report_failures(failed, total)


def _stream(arguments: argparse.Namespace) -> Callable[[Sequence[str]], Generator[list[Any] | Failure, None, None]]:
    """What gives, for the pictures of some names, the texts of each, best first."""
    if arguments.rerank:
        check_model_name(arguments.rerank)
    captioner = writing.load(arguments)
    from siglip.captioner import told_task

    prompt = told_task(arguments.prompt)
    if not arguments.rerank:

        def written(names: Sequence[str]) -> Generator[list[Any] | Failure, None, None]:
            options = writing.options(arguments)
            for item in captioner.write(names, prompt, **options):
                yield item if isinstance(item, Failure) else [item]

        return written
    from siglip.embedder import Embedder
    from siglip.pipelines import reranked

    embedder = Embedder.from_pretrained(arguments.rerank, device=arguments.device, batch_size=arguments.batch_size)
    drawn = {
        "count": arguments.samples or 5,
        "seed": arguments.seed or 0,
        "max_new_tokens": writing.options(arguments)["max_new_tokens"],
    }
    return lambda names: reranked(captioner, embedder, names, prompt, **drawn)


def _write(captions: list[tuple[str, str]], form: str, *, overwrite: bool) -> list[Failure]:
    """Write the files; what could not be written is returned, and the others are there."""
    files: dict[Path, str] = {}
    failed: list[Failure] = []
    for name, caption in captions:
        picture = Path(name)
        if not picture.exists():
            failed.append(Failure(name, "is not a file on this machine, so no text is written beside it"))
            continue
        if form == "jsonl":
            file = picture.parent / "captions.jsonl"
            line = json.dumps({"image": picture.name, "caption": caption}, ensure_ascii=False) + "\n"
            files[file] = files.get(file, "") + line
            continue
        file = picture.with_suffix(".txt") if form == "txt" else picture.with_name(f"{picture.name}.xmp")
        if file in files:
            failed.append(Failure(name, f"{file} already belongs to another picture of the same name"))
        else:
            files[file] = caption + "\n" if form == "txt" else _XMP.format(escape(_NO_XML.sub(" ", caption)))
    written = 0
    for file, text in files.items():
        if file.exists() and not overwrite:
            failed.append(Failure(str(file), "is already there and was left as it is; --overwrite replaces it"))
            continue
        write_text(file, text)
        written += 1
    output.say(f"{written} files written")
    return failed
