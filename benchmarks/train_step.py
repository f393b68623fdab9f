"""How many pairs a second does a training step take, against open_clip's step with the same towers and batch?

A turn is one update of base/16-224 or of the built-in model's towers, random weights, in one process: picture
normalisation, towers, sigmoid loss, backward, clipping to norm 1, AdamW. The peer's step is that of its trainer without
accumulation: its model, its SigLipLoss, clip_grad_norm_, torch's AdamW, and its clamp of t. Where the processor
computes in bfloat16, ours in bfloat16 is compared with the peer's float32 too.
"""

import copy
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Contestant, Row, arguments, compare, publish, race
from benchmarks.towers import TINY, default_of
from siglip import SiglipConfig, SiglipModel, SiglipProcessor, SiglipTextConfig, SiglipVisionConfig
from siglip.checkpoints import convert
from siglip.config import ImageSettings, TextSettings
from siglip.data import Batch
from siglip.processing import SiglipImageProcessor, SiglipTokenizer
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig
from siglip.training.learner import Learner
from tests.losses.batches import open_clip_losses
from tests.peers import open_clip_model

OPTIMIZER = OptimizerSpec(lr=1e-5, weight_decay=0.1, clip_norm=1.0)


def a_batch(config: SiglipConfig, rows: int) -> Batch:
    size, text = config.vision_config.image_size, config.text_config
    unknown = torch.full((rows,), -1)
    return Batch(
        names=tuple(map(str, range(rows))),
        indices=torch.arange(rows),
        pixels=torch.randint(0, 256, (rows, size, size, 3), dtype=torch.uint8),
        input_ids=torch.randint(2, text.vocab_size, (rows, text.max_position_embeddings)),
        image_ids=unknown,
        text_ids=unknown,
        labels=unknown,
    )


def processor_of(config: SiglipConfig) -> SiglipProcessor:
    """Pictures of the model's size; the batch is tokenised already."""
    vocabulary = SiglipProcessor.from_pretrained("nano").tokenizer.vocab_file
    text = TextSettings(context_length=config.text_config.max_position_embeddings)
    image = ImageSettings(image_size=config.vision_config.image_size)
    return SiglipProcessor(SiglipImageProcessor(image), SiglipTokenizer(vocabulary, text))


def our_step(model: SiglipModel, batch: Batch, precision: Any) -> Contestant:
    config = TrainConfig(
        model=ModelSpec(config=model.config, preparation="nano"),
        data=DataSpec(train="given"),
        optimizer=OPTIMIZER,
        batch_size=len(batch),
        precision=precision,
    )
    learner = Learner(copy.deepcopy(model), processor_of(model.config), config, torch.device("cpu"))
    return lambda: learner.update(batch, 0)["loss"]


def its_step(model: SiglipModel, batch: Batch) -> Contestant:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "ours")
        processor_of(model.config).save_pretrained(Path(folder) / "ours")
        convert(Path(folder) / "ours", Path(folder) / "its", "open_clip")
        peer = open_clip_model(Path(folder) / "its", model.config.vision_config).train()
    loss_of = open_clip_losses().SigLipLoss()
    decayed = [weight for weight in peer.parameters() if weight.ndim >= 2]
    rest = [weight for weight in peer.parameters() if weight.ndim < 2]
    groups = [{"params": rest, "weight_decay": 0.0}, {"params": decayed, "weight_decay": OPTIMIZER.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=OPTIMIZER.lr, betas=(OPTIMIZER.beta1, OPTIMIZER.beta2))
    assert batch.pixels is not None
    pixels = batch.pixels

    def step() -> float:
        optimizer.zero_grad()
        images = pixels.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)
        image, text, scale, bias = peer(images, batch.input_ids)
        loss = loss_of(image, text, logit_scale=scale, logit_bias=bias)
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), OPTIMIZER.clip_norm)
        optimizer.step()
        with torch.no_grad():
            peer.logit_scale.clamp_(0, math.log(100))
        return loss.item()

    return step


def measure(what: str, config: SiglipConfig, rows: int, rounds: int) -> tuple[list[Row], dict[str, Any]]:
    torch.manual_seed(0)
    model = SiglipModel(config, generator=torch.Generator().manual_seed(0))
    batch = a_batch(config, rows)
    turns = {"peer": its_step(model, batch), "ours": our_step(model, batch, "float32")}
    native = next(default_of(model).text_model.parameters()).dtype == torch.bfloat16
    if native:
        turns["ours bfloat16"] = our_step(model, batch, "bfloat16")
    first = {name: turn() for name, turn in turns.items()}
    timings = race(turns, rounds=rounds, warm_up=False)
    found = [compare(f"{what}: both float32", timings, peer="peer", ours="ours", goal=1.0)]
    facts: dict[str, Any] = {f"{what}: loss of the first step, {name}": loss for name, loss in first.items()}
    if native:
        row = compare(f"{what}: our bfloat16 / its float32", timings, peer="peer", ours="ours bfloat16", goal=1.5)
        found.append(row)
    else:
        facts["bfloat16"] = "not measured: this processor does not compute in it"
    facts[f"{what}: pairs a second, ours in float32"] = round(rows / found[0].ours_s, 2)
    return found, facts


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    cases = {"base/16-224": (SiglipConfig(), 8), "nano": (SiglipConfig.from_pretrained("nano"), 256)}
    if options.quick:
        text = SiglipTextConfig(**TINY, vocab_size=8000, max_position_embeddings=8)
        tiny = SiglipConfig(text_config=text, vision_config=SiglipVisionConfig(**TINY, image_size=32))
        cases = {"tiny": (tiny, 2)}
    found: list[Row] = []
    facts: dict[str, Any] = {}
    for what, (config, rows) in cases.items():
        compared, told = measure(f"{what}, {rows} pairs", config, rows, options.rounds or (1 if options.quick else 5))
        found += compared
        facts |= told
    publish("Training step", found, facts, quick=options.quick)


if __name__ == "__main__":
    main()
