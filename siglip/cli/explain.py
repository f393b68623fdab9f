"""Show where in a picture the model sees what a text says, as heat over it.

Each text gets a map: what the picture's vector loses for this text, more than
for everyday words, when a window of patches is left out of the pooling. The
centre of the heat is printed, in pixels from the left and from the top. Heat
tells what this model's answer rests on; it is no outline of the thing, and
says little for a text that does not fit the picture at all.

for example:
  siglip explain samples/cat.jpg --texts cat --out heat.png
  siglip explain samples/cat.jpg --texts cat "a teapot" --json
  siglip explain samples/cat.jpg --texts-file samples/labels.txt
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from siglip.cli import inputs, output, sheet

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

_CELL_PX = 384


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip explain IMAGE (--texts TEXT... | --texts-file FILE) [...]"
    parser.add_argument("image", metavar="IMAGE", help="the picture: a file or an http(s) address")
    inputs.add_text_arguments(parser, "texts")
    parser.add_argument(
        "--out", type=sheet.png, metavar="FILE.png", help="draw the picture with the heat of each text over it"
    )
    output.add_form_arguments(parser)
    inputs.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    texts = inputs.texts(arguments.texts, arguments.texts_file)
    out: Path | None = arguments.out
    embedder = inputs.load_embedder(arguments)
    from siglip.processing import read_image
    from siglip.search.explain import heat_maps, heat_over

    picture = read_image(arguments.image)
    heat = heat_maps(embedder, picture, texts)
    columns = [output.Column("text", texts), output.Column("x", width=5), output.Column("y", width=5)]
    head = {"image": arguments.image, "model": arguments.model}
    report = output.Report(output.form_of(arguments), columns, key="maps", head=head)
    for text, rows in zip(texts, heat, strict=True):
        x, y = (round(share * size) for share, size in zip(_centre(rows), picture.size, strict=True))
        shares = [[round(float(share), 5) for share in row] for row in rows]
        report.add({"text": text, "x": x, "y": y, "heat": shares}, [[text, x, y]])
    report.close()
    if out is not None:
        from siglip.contact_sheet import contact_sheet

        small = picture.copy()
        small.thumbnail((_CELL_PX, _CELL_PX))
        cells = [(heat_over(small, rows), [text]) for text, rows in zip(texts, heat, strict=True)]
        sheet.save(contact_sheet(cells, cell_px=_CELL_PX, columns=min(4, len(cells))), out)
        output.say(f"{out} shows {len(texts)} {'map' if len(texts) == 1 else 'maps'}")
    return 0


def _centre(rows: "Float32[np.ndarray, 'rows columns']") -> tuple[float, float]:
    """Where the heat has its centre, as shares of width and height."""
    x = float(rows.sum(axis=0) @ [column + 0.5 for column in range(rows.shape[1])]) / rows.shape[1]
    y = float(rows.sum(axis=1) @ [row + 0.5 for row in range(rows.shape[0])]) / rows.shape[0]
    return x, y
