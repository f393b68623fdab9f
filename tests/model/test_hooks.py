"""Hooks see what each part of a model gives: the values that transformers' hooks see at the part of the same name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.model import SiglipModel
from tests.model.paligemmas import PICTURES, peer_of, tiny
from tests.peers import perturb

PIXELS = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
IDS = torch.randint(0, 50, (3, 5), generator=torch.Generator().manual_seed(2))


def watch(part: nn.Module, keep: Callable[[Any], None], how: str) -> None:
    """Hand to `keep` what the part gives, in one of the ways in use."""
    if how == "hook":
        part.register_forward_hook(lambda _module, _inputs, output: keep(output))
        return
    real = part.forward

    def told(*inputs: Any, **named: Any) -> Any:
        output = real(*inputs, **named)
        keep(output)
        return output

    part.forward = told


def seen(model: nn.Module, run: Callable[[Any], object], how: str = "hook") -> dict[str, Tensor]:
    """What is left, when all is done, of the tensors that were seen at each part."""
    kept: dict[str, Any] = {}
    for name, part in model.named_modules():
        watch(part, lambda output, name=name: kept.setdefault(name.removeprefix("model."), output), how)
    run(model)
    return {name: tensor for name, output in kept.items() if (tensor := tensor_of(output)) is not None}


def tensor_of(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output.detach()
    first = output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", None)
    return first.detach() if isinstance(first, Tensor) else None


def parts_of(model: nn.Module) -> set[str]:
    """All that computes; lists of layers do not."""
    return {name for name, part in model.named_modules() if name and not isinstance(part, nn.ModuleList)}


def compare(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> int:
    shared = ours.keys() & theirs.keys()
    for name in shared:
        # a pooled vector and a table of positions have one more axis there
        torch.testing.assert_close(
            ours[name].flatten(), theirs[name].flatten(), rtol=1e-4, atol=1e-4, msg=lambda told, name=name: name + told
        )
    return len(shared)


def make_towers() -> SiglipModel:
    text = SiglipTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=5,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, image_size=12, patch_size=4
    )
    return perturb(SiglipModel(SiglipConfig.from_text_vision_configs(text, vision)))


@pytest.mark.parametrize("how", ["hook", "forward"])
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("asked", ["pairs", "features"])
def test_every_part_of_both_towers_is_seen_as_it_is(how: str, learns: bool, asked: str, tmp_path: Path) -> None:
    make_towers().save_pretrained(tmp_path)
    ours = SiglipModel.from_pretrained(tmp_path)
    theirs: Any = transformers.SiglipModel.from_pretrained(tmp_path, attn_implementation="eager").eval()

    def run(model: Any) -> None:
        if asked == "pairs":
            model(input_ids=IDS, pixel_values=PIXELS)
        else:
            model.get_text_features(input_ids=IDS)
            model.get_image_features(pixel_values=PIXELS)

    with torch.set_grad_enabled(learns):
        found = seen(ours, run, how)
        assert found.keys() == parts_of(ours)
        # their attention pooling is one part of torch, in which the last layer is never called
        assert compare(found, seen(theirs, run)) == len(found) - 1


@pytest.mark.parametrize("how", ["hook", "forward"])
@pytest.mark.parametrize("second", [False, True])
def test_every_part_of_a_writer_is_seen_as_it_is(how: str, second: bool, tmp_path: Path) -> None:
    ours = tiny(second)
    theirs = peer_of(ours, tmp_path)
    ids = torch.tensor([[60] * 4 + [2, 9, 8, 7, 3], [60] * 4 + [2, 30, 31, 32, 3]])

    def run(model: Any) -> None:
        model(input_ids=ids, pixel_values=PICTURES[:2], token_type_ids=torch.zeros_like(ids))

    with torch.no_grad():
        found = seen(ours, run, how)
        assert found.keys() == parts_of(ours)
        # there the table scales what it gives
        found["language_model.embed_tokens"] = found["language_model.embed_tokens"] * 24**0.5
        assert compare(found, seen(theirs, run)) == len(found)


@pytest.mark.parametrize("how", ["hook", "forward"])
def test_what_a_writer_reads_is_seen_whole_and_it_writes_the_same(how: str) -> None:
    """A prompt is otherwise read for its last token alone in the last layer."""
    ids = torch.tensor([[60] * 4 + [2, 9, 8, 7, 3], [0, 60, 60, 60, 60, 2, 30, 31, 3]])
    mask = (ids > 0).long()
    written = tiny(True).generate(ids, PICTURES[:2], mask, max_new_tokens=4)
    model = tiny(True)
    told: list[Tensor] = []
    watch(model.language_model.layers[-1].mlp.gate_proj, told.append, how)
    assert model.generate(ids, PICTURES[:2], mask, max_new_tokens=4).tolist() == written.tolist()
    assert told[0].shape == (2, ids.shape[1], 40)
