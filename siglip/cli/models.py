"""List the built-in models and the published checkpoints.

SigLIP and SigLIP 2 compare pictures with texts; PaliGemma writes captions and
answers, and has neither vectors nor an accuracy here.

size    millions of parameters
px      side of the picture in pixels; a dash: any shape, not run by us yet
patch   side of a patch in pixels
ctx     the longest text in tokens
dim     length of the vectors
top1    published zero-shot accuracy on ImageNet in per cent

for example:
  siglip models
  siglip models | grep so400m
  siglip models --json
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import siglip
from siglip.cli import output
from siglip.config import SiglipConfig
from siglip.config_paligemma import PaliGemmaConfig
from siglip.releases import BUILT_IN, BUILT_IN_WRITER, PALIGEMMA_RELEASES, RELEASES, PaliGemmaRelease, Release


def configure(parser: argparse.ArgumentParser) -> None:
    output.add_form_arguments(parser)


# key of the record -> heading of the table
_HEADINGS = {
    "model": "model",
    "parameters_millions": "size",
    "image_size": "px",
    "patch_size": "patch",
    "context_length": "ctx",
    "embedding_size": "dim",
    "imagenet_top1": "top1",
}


def run(arguments: argparse.Namespace) -> int:
    records = [_built_in(BUILT_IN), _built_in(BUILT_IN_WRITER), *map(release_facts, [*RELEASES, *PALIGEMMA_RELEASES])]
    rows = [[_cell(record[key]) for key in _HEADINGS] for record in records]
    columns = [
        output.Column(heading, [row[place] for row in rows], right=place > 0)
        for place, heading in enumerate(_HEADINGS.values())
    ]
    report = output.Report(output.form_of(arguments), columns, key="models", head={})
    for record, row in zip(records, rows, strict=True):
        report.add(record, [row])
    report.close()
    return 0


def _cell(value: str | int | float | None) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if value < 1000 else f"{value:.0f}"
    return "-" if value is None else str(value)


def release_facts(release: Release | PaliGemmaRelease) -> dict[str, Any]:
    """What is known of a published checkpoint without downloading it; sizes in pixels and tokens."""
    if isinstance(release, PaliGemmaRelease):
        return {
            "model": release.name,
            "parameters_millions": round(release.parameters / 1e6, 1),
            "image_size": release.image_size,
            "patch_size": release.config.vision_config.patch_size,
            "context_length": release.config.text_config.max_position_embeddings,
            "embedding_size": None,
            "imagenet_top1": None,
            "vocab_size": release.config.text_config.vocab_size,
            "supported": True,
        }
    return {
        "model": release.name,
        "parameters_millions": release.parameters_millions,
        "image_size": None if release.naflex else release.image_size,
        "patch_size": release.patch_size,
        "context_length": release.context_length,
        "embedding_size": release.embedding_size,
        "imagenet_top1": release.imagenet_top1,
        "vocab_size": release.vocab_size,
        "supported": not release.naflex,
    }


def _built_in(name: str) -> dict[str, Any]:
    folder = Path(siglip.__file__).parent / "assets" / name
    kind = PaliGemmaConfig if name == BUILT_IN_WRITER else SiglipConfig
    config = kind.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    return {
        "model": name,
        "parameters_millions": round(_parameters(folder / "model.safetensors") / 1e6, 2),
        "image_size": config.vision_config.image_size,
        "patch_size": config.vision_config.patch_size,
        "context_length": config.text_config.max_position_embeddings,
        "embedding_size": config.text_config.embedding_size if isinstance(config, SiglipConfig) else None,
        "imagenet_top1": None,
        "vocab_size": config.text_config.vocab_size,
        "supported": True,
    }


def _parameters(weights: Path) -> int:
    """Numbers in a safetensors file, read from its header: a length, then a JSON object of names and shapes."""
    with weights.open("rb") as stream:
        heading = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in heading.items() if name != "__metadata__")
