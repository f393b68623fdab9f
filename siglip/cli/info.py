"""Show what a model is made of.

Shows the sizes of both towers, how pictures and texts are prepared, the
learned temperature t and bias b (logit = t * cosine + b), and the fingerprint
of weights and preparation; of a trained classifier its classes. For a
published checkpoint that is not on this machine: what is known of it, without
using the network.

for example:
  siglip info nano
  siglip info google/siglip2-base-patch16-256 --json
  siglip info nano | grep fingerprint
"""

import argparse
from dataclasses import asdict
from typing import Any

from siglip.cli import output
from siglip.cli.models import release_facts
from siglip.errors import DownloadError, NotYetSupported
from siglip.releases import PALIGEMMA_RELEASES, RELEASES, check_model_name


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="nano, a folder or file, or a hub name; see `siglip models`")
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    check_model_name(arguments.model)
    output.print_record(output.form_of(arguments), _facts(arguments.model))
    return 0


def _facts(name: str) -> dict[str, Any]:
    import numpy as np

    from siglip.checkpoints import classifies, fingerprint, writes
    from siglip.model import SiglipModel
    from siglip.processing import SiglipProcessor

    try:
        if writes(name, local_files_only=True):
            return _facts_of_a_writer(name)
        if classifies(name, local_files_only=True):
            return _facts_of_a_classifier(name)
        model = SiglipModel.from_pretrained(name, local_files_only=True)
        processor = SiglipProcessor.from_pretrained(name, local_files_only=True)
    except (DownloadError, NotYetSupported):
        published = {release.name: release for release in (*RELEASES, *PALIGEMMA_RELEASES)}
        if name not in published:
            raise
        return {"on_this_machine": False, **release_facts(published[name])}
    return {
        "model": name,
        "on_this_machine": True,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "temperature_t": output.shortest(np.float32(model.logit_scale.detach().float().exp().item())),
        "bias_b": output.shortest(np.float32(model.logit_bias.item())),
        "fingerprint": fingerprint(model, processor),
        "pictures": asdict(processor.image_processor.settings),
        "texts": asdict(processor.tokenizer.settings),
        "vision_config": asdict(model.config.vision_config),
        "text_config": asdict(model.config.text_config),
    }


def _facts_of_a_classifier(name: str) -> dict[str, Any]:
    from siglip.checkpoints import fingerprint
    from siglip.model import SiglipForImageClassification
    from siglip.processing import SiglipImageProcessor

    model = SiglipForImageClassification.from_pretrained(name, local_files_only=True)
    processor = SiglipImageProcessor.from_pretrained(name, local_files_only=True)
    return {
        "model": name,
        "on_this_machine": True,
        "classifies": list(model.config.id2label.values()),
        "problem_type": model.config.problem_type,
        "parameters": model.num_parameters(),
        "fingerprint": fingerprint(model, processor),
        "pictures": asdict(processor.settings),
        "vision_config": asdict(model.config.vision_config),
    }


def _facts_of_a_writer(name: str) -> dict[str, Any]:
    from siglip.config_paligemma import PaliGemmaConfig
    from siglip.model import PaliGemmaForConditionalGeneration

    config = PaliGemmaConfig.from_pretrained(name, local_files_only=True)
    model = PaliGemmaForConditionalGeneration.from_pretrained(name, dtype="auto", local_files_only=True)
    return {
        "model": name,
        "on_this_machine": True,
        "writes": "captions and answers",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "patches": config.vision_config.num_patches,
        "image_token_index": config.image_token_index,
        "vision_config": asdict(config.vision_config),
        "text_config": asdict(config.text_config),
    }
