"""How fast does a PaliGemma write, random weights, against transformers with the same weights?

A turn is 32 new tokens, greedy, float32, for 1 or 8 pictures with a short prompt each; nothing ends early.
"""

import tempfile
from functools import partial
from typing import Any

import torch
import transformers

from benchmarks.harness import Contestant, Row, arguments, compare, publish, race
from siglip import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig


def models(quick: bool) -> tuple[PaliGemmaForConditionalGeneration, Any]:
    """Ours and transformers', of about 60 million parameters."""
    text = GemmaConfig(
        vocab_size=64 if quick else 32000, hidden_size=32 if quick else 512, intermediate_size=64 if quick else 2048,
        num_hidden_layers=2 if quick else 8, num_attention_heads=4, num_key_value_heads=1,
        head_dim=8 if quick else 128,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=48 if quick else 384, intermediate_size=96 if quick else 1536, num_attention_heads=6,
        num_hidden_layers=2 if quick else 6, image_size=224, patch_size=28 if quick else 16, vision_use_head=False,
    )  # fmt: skip
    config = PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=text.vocab_size)
    ours = PaliGemmaForConditionalGeneration(config, generator=torch.Generator().manual_seed(0)).eval()
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        peer = transformers.PaliGemmaForConditionalGeneration.from_pretrained(folder).eval()
    # no token is -1, so both write to the end
    peer.generation_config.eos_token_id = None
    ours.config = PaliGemmaConfig(
        vision_config=vision, text_config=text, image_token_index=text.vocab_size, eos_token_id=-1
    )
    return ours, peer


@torch.inference_mode()
def measure(batch: int, new: int, rounds: int, quick: bool) -> tuple[Row, bool]:
    ours, peer = models(quick)
    config = ours.config
    pictures = torch.rand(batch, 3, 224, 224) * 2 - 1
    prompt = torch.randint(3, config.text_config.vocab_size, (batch, 6))
    places = torch.full((batch, config.vision_config.num_patches), config.image_token_index)
    ids = torch.cat([places, prompt], dim=1)
    write: dict[str, Contestant] = {
        "ours": partial(ours.generate, ids, pictures, max_new_tokens=new),
        "peer": partial(
            peer.generate, input_ids=ids, pixel_values=pictures, attention_mask=torch.ones_like(ids),
            token_type_ids=torch.zeros_like(ids), max_new_tokens=new, do_sample=False,
        ),
    }  # fmt: skip
    same = torch.equal(write["ours"](), write["peer"]())
    timings = race(write, rounds=rounds)
    return compare(f"{new} tokens, {batch} pictures", timings, peer="peer", ours="ours", goal=1.3), same


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    for batch in (1, 8):
        new = 4 if options.quick else 32
        row, same = measure(batch, new, options.rounds or (1 if options.quick else 5), options.quick)
        rows.append(row)
        facts[f"same tokens, {batch} pictures"] = same
    publish("Generation against transformers, float32", rows, facts, quick=options.quick)


if __name__ == "__main__":
    main()
