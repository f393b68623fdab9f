"""How fast does a PaliGemma write, random weights, against transformers with the same weights?

A turn is 32 new tokens, greedy, float32, for 1 or 8 pictures with a short prompt each; nothing ends early. Then the
captions of 200 JPEG files, 12 tokens each, with a smaller model: ours by Captioner, the peer's in the loop of its
users, who open, prepare and describe one picture after the other. The peer's prompt is tokenised beforehand.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from benchmarks.folder import photograph
from benchmarks.harness import Contestant, Row, arguments, compare, publish, race
from siglip import (
    Captioner,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
    SiglipProcessor,
    SiglipVisionConfig,
)  # fmt: skip
from siglip.captioner import Text
from siglip.config import ImageSettings

# of the decoder: vocabulary, width, mlp, layers, head width; of the tower: width, mlp, layers, side of a patch
TOY = ((64, 32, 64, 2, 8), (48, 96, 2, 28))
MIDDLE = ((32000, 512, 2048, 8, 128), (384, 1536, 6, 16))  # about 60 million parameters
SMALL = ((8002, 256, 768, 4, 64), (192, 768, 6, 16))  # about 8 million


def models(shape: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[PaliGemmaForConditionalGeneration, Any]:
    """Ours and transformers'."""
    (words, width, mlp, layers, head), (tower_width, tower_mlp, tower_layers, patch) = shape
    text = GemmaConfig(
        vocab_size=words, hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=1, head_dim=head,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=tower_width, intermediate_size=tower_mlp, num_attention_heads=6, num_hidden_layers=tower_layers,
        image_size=224, patch_size=patch, vision_use_head=False,
    )  # fmt: skip
    config = PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=text.vocab_size)
    ours = PaliGemmaForConditionalGeneration(config, generator=torch.Generator().manual_seed(0)).eval()
    # the logit of the end is 0, which is never the largest of thousands, so both write to the last token
    with torch.no_grad():
        ours.language_model.embed_tokens.weight[config.eos_token_id] = 0
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        peer = transformers.PaliGemmaForConditionalGeneration.from_pretrained(folder).eval()
    return ours, peer


def costs(
    ours: PaliGemmaForConditionalGeneration, write: Contestant, prefill: Contestant, new: int, tokens: int
) -> str:
    """What the prompt and each further token cost, beside a plain product of two 2048 x 2048 matrices."""
    matrix = torch.randn(2048, 2048)
    turns = race({"gemm": lambda: matrix @ matrix, "first": prefill, "all": write}, rounds=3)
    gemm, first, whole = (min(turn.wall_s for turn in turns[name]) for name in ("gemm", "first", "all"))
    blocks = sum(weight.numel() for weight in ours.language_model.layers.parameters())
    tower = sum(weight.numel() for weight in ours.vision_tower.encoder.parameters())
    patches = ours.config.vision_config.num_patches
    # each picture of `tokens` rows
    flops = 2.0 * (blocks * tokens + tower * patches * tokens / (patches + 6))
    share = flops / first / (2 * 2048**3 / gemm)
    step = (whole - first) / (new - 1)
    read = 4 * (blocks + ours.language_model.embed_tokens.weight.numel()) / step
    return (
        f"prompt {first:.3f} s, {share:.2f} of the rate of a matrix product; each token {1000 * step:.1f} ms, in which "
        f"the decoder's weights are read at {read / 1e9:.1f} GB/s"
    )


@torch.inference_mode()
def measure(batch: int, new: int, rounds: int, quick: bool) -> tuple[Row, bool, str]:
    ours, peer = models(TOY if quick else MIDDLE)
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
    prefill = partial(ours.generate, ids, pictures, max_new_tokens=1)
    told = costs(ours, write["ours"], prefill, new, ids.numel())
    return compare(f"{new} tokens, {batch} pictures", timings, peer="peer", ours="ours", goal=1.3), same, told


def measure_files(quick: bool, rounds: int) -> tuple[Row, int]:
    """Files on disk -> captions; also how many captions are the same."""
    ours, peer = models(((8002, *TOY[0][1:]), TOY[1]) if quick else SMALL)
    images = SiglipImageProcessor(ImageSettings(image_size=224, resample="bicubic"))
    tokenizer = SiglipProcessor.from_pretrained("nano").tokenizer
    processor = PaliGemmaProcessor(images, tokenizer, ours.config.vision_config.num_patches)
    captioner = Captioner(ours, processor)
    theirs = transformers.SiglipImageProcessor(size={"height": 224, "width": 224}, resample=3)
    ids = processor.join(["caption en"])["input_ids"]
    new = 2 if quick else 12

    def our_way(paths: Sequence[Path]) -> list[str]:
        return [
            item.text for item in captioner.write(paths, "caption en", max_new_tokens=new) if isinstance(item, Text)
        ]

    @torch.inference_mode()
    def their_way(paths: Sequence[Path]) -> list[str]:
        texts: list[str] = []
        for path in paths:
            pixels = theirs(images=Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]
            tokens = peer.generate(
                input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=new,
                token_type_ids=torch.zeros_like(ids), do_sample=False,
            )  # fmt: skip
            texts.append(processor.decode(tokens[0, ids.shape[1] :]))
        return texts

    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name, f"{number}.jpg") for number in range(4 if quick else 200)]
        for number, path in enumerate(paths):
            photograph((640, 480), number).save(path, quality=90)
        same = sum(one == other for one, other in zip(our_way(paths[:20]), their_way(paths[:20]), strict=True))
        ways: dict[str, Contestant] = {"ours": partial(our_way, paths), "peer": partial(their_way, paths)}
        timings = race(ways, rounds=rounds, warm_up=False)
    return compare(f"captions of {len(paths)} files", timings, peer="peer", ours="ours", goal=1.5), same


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    for batch in (1, 8):
        new = 4 if options.quick else 32
        row, same, told = measure(batch, new, options.rounds or (1 if options.quick else 5), options.quick)
        rows.append(row)
        facts |= {f"same tokens, {batch} pictures": same, f"costs of {batch} pictures": told}
    row, same = measure_files(options.quick, min(options.rounds or 2, 2))
    rows.append(row)
    facts["same captions of the first 20 files"] = same
    publish("Generation against transformers, float32", rows, facts, quick=options.quick)


if __name__ == "__main__":
    main()
