"""Small PaliGemmas of both generations, prompts of unequal length, and the peer with the same weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siglip.config import SiglipVisionConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.model import PaliGemmaForConditionalGeneration


def tiny(second: bool, *, final_cap: float | None = None) -> PaliGemmaForConditionalGeneration:
    text = GemmaConfig(
        vocab_size=60, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, post_norms=second,
        attn_logit_softcapping=2.0 if second else None, final_logit_softcapping=final_cap,
        query_pre_attn_scalar=6 if second else None,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4,
        vision_use_head=False,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    config = PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=60)
    model = PaliGemmaForConditionalGeneration(config, generator=generator)
    for parameter in model.parameters():
        # so that no norm is the identity, and the likeliest words differ between rows
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


MODELS = {second: tiny(second) for second in (False, True)}
PICTURES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def prompts(*texts: list[int], right: bool = False) -> tuple[Tensor, Tensor]:
    longest = max(map(len, texts))
    rows, masks = [], []
    for text in texts:
        ids, padding = [60] * 4 + text, [0] * (longest - len(text))
        rows.append(ids + padding if right else padding + ids)
        masks.append([1] * len(ids) + padding if right else padding + [1] * len(ids))
    return torch.tensor(rows), torch.tensor(masks)


PROMPTS = ([2, 9, 8, 7, 3], [2, 9, 3], [2, 30, 31, 32, 33, 34, 3])


def peer_of(model: PaliGemmaForConditionalGeneration, folder: Path) -> Any:
    from transformers import PaliGemmaForConditionalGeneration as Peer

    model.save_pretrained(folder)
    return Peer.from_pretrained(folder, attn_implementation="eager").eval()


def middling(second: bool) -> PaliGemmaForConditionalGeneration:
    """19 million parameters: a tower of 4 layers and 64 patches, a decoder of 6, 4 query heads to a key head."""
    text = GemmaConfig(
        vocab_size=4000, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=2, head_dim=64, post_norms=second, attn_logit_softcapping=50.0 if second else None,
        final_logit_softcapping=30.0 if second else None, query_pre_attn_scalar=48 if second else None,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4, image_size=64,
        patch_size=8, vision_use_head=False,
    )  # fmt: skip
    config = PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=4000)
    generator = torch.Generator().manual_seed(11)
    model = PaliGemmaForConditionalGeneration(config, generator=generator)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    # larger than when training begins, so that logits spread as those of a trained model
    model.language_model.embed_tokens.weight.data *= 4.0
    return model.eval()
