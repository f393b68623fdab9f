"""How fast are the towers of base/16-224, random weights, against transformers with the same weights?

A turn is one batch of 8 pictures or 8 texts, without gradients. "Our default" is the dtype that Embedder picks here.
Also: the part of this machine's measured matrix product rate, in that dtype, that the image tower reaches.
"""

import copy
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Contestant, Row, Timings, arguments, compare, publish, race
from siglip import Embedder, SiglipConfig, SiglipModel, SiglipProcessor, SiglipTextConfig, SiglipVisionConfig

TINY = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}
_GEMM_SIZE = 2048


def peer_of(model: SiglipModel) -> Any:
    """transformers' model with our weights."""
    values = model.config.to_dict()
    # its defaults for these are left over from another model and lie outside the vocabulary
    values["text_config"] |= {"bos_token_id": None, "eos_token_id": None}
    peer = transformers.SiglipModel(transformers.SiglipConfig(**values)).eval()
    peer.load_state_dict(model.state_dict())
    return peer


def default_of(model: SiglipModel) -> SiglipModel:
    """A copy in the dtype that users of Embedder get on this machine."""
    dtype = Embedder(model, SiglipProcessor.from_pretrained("nano")).dtype
    return copy.deepcopy(model).to(dtype)


def features(model: nn.Module, batch: Tensor) -> Tensor:
    """The pooled vectors of pictures or texts: our models return them, the peer's wrap them."""
    found = model.get_image_features(batch) if batch.is_floating_point() else model.get_text_features(batch)
    return found if isinstance(found, Tensor) else found.pooler_output


@torch.inference_mode()
def measure(config: SiglipConfig, batch: int, rounds: int) -> tuple[list[Row], dict[str, Any]]:
    ours = SiglipModel(config, generator=torch.Generator().manual_seed(0)).eval().requires_grad_(False)
    peer, default = peer_of(ours), default_of(ours)
    dtype = next(default.text_model.parameters()).dtype
    text, size = config.text_config, config.vision_config.image_size
    inputs = {
        "pictures": torch.rand(batch, 3, size, size) * 2 - 1,
        "texts": torch.randint(0, text.vocab_size, (batch, text.max_position_embeddings)),
    }
    gemm = torch.randn(2, _GEMM_SIZE, _GEMM_SIZE).to(dtype)
    rows: list[Row] = []
    facts: dict[str, Any] = {"our default": str(dtype).removeprefix("torch.")}
    for name, given in inputs.items():
        entrants = {"peer": peer, "ours": ours} | ({"default": default} if dtype != torch.float32 else {})
        turns: dict[str, Contestant] = {key: partial(features, model, given) for key, model in entrants.items()}
        timings = race(turns | {"gemm": lambda: gemm[0] @ gemm[1]}, rounds=rounds)
        timings.setdefault("default", timings["ours"])
        rows.append(compare(f"{name}, both float32", timings, peer="peer", ours="ours", goal=1.0))
        rows.append(compare(f"{name}, our default / its default", timings, peer="peer", ours="default", goal=1.8))
        same = F.cosine_similarity(features(peer, given), features(default, given).float()).min()
        facts[f"{name}: lowest cosine, our default and its default"] = round(same.item(), 7)
        if name == "pictures":
            facts |= gemm_share(default, given, timings)
    half = copy.deepcopy(peer).to(torch.bfloat16)
    for name, given in inputs.items():
        # where a processor has no bfloat16 the peer's takes minutes, so two rounds must do
        turns = {"peer bfloat16": partial(features, half, given), "default": partial(features, default, given)}
        timings = race(turns, rounds=min(rounds, 2), warm_up=False)
        rows.append(compare(f"{name}, our default / its bfloat16", timings, peer="peer bfloat16", ours="default"))
    return rows, facts


def gemm_share(model: SiglipModel, pixels: Tensor, timings: Timings) -> dict[str, Any]:
    """The image tower's rate over the rate of a plain product of two 2048 x 2048 matrices, round by round."""
    with FlopCounterMode(display=False) as counter:
        features(model, pixels)
    gemm_flops, tower_flops = 2 * _GEMM_SIZE**3, counter.get_total_flops()
    rates = [gemm_flops / turn.wall_s for turn in timings["gemm"]]
    shares = [tower_flops / turn.wall_s / rate for turn, rate in zip(timings["default"], rates, strict=True)]
    return {
        "matrix product rate, GFLOP/s": round(median(rates) / 1e9, 1),
        "share of it the image tower reaches": round(median(shares), 3),
        "goal of that share": 0.75,
    }


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    transformers.logging.set_verbosity_error()
    config, batch = SiglipConfig(), 8
    if options.quick:
        config = SiglipConfig(
            text_config=SiglipTextConfig(**TINY, vocab_size=100, max_position_embeddings=8),
            vision_config=SiglipVisionConfig(**TINY, image_size=32),
        )
        batch = 2
    rows, facts = measure(config, batch, options.rounds or (1 if options.quick else 9))
    publish(f"Towers of base/16-224, batches of {batch}", rows, facts, quick=options.quick)


if __name__ == "__main__":
    main()
