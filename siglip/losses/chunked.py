"""The sigmoid loss without its n * n logits: gradients are made while the forward pass walks over blocks of rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from siglip.errors import ShapeError, TrainingError
from siglip.losses.sigmoid import Pairs, positive_pairs

# of one block of logits, its costs take as much again; larger ones gain no speed (benchmarks/loss.py)
_BLOCK_BYTES = 32 * 2**20


def chunked_sigmoid_loss(
    image_embeds: Float[Tensor, "images image_dim"],
    text_embeds: Float[Tensor, "texts text_dim"],
    *,
    logit_scale: Float[Tensor, "..."],
    logit_bias: Float[Tensor, "..."],
    image_ids: Int[Tensor, "image_ids"] | None = None,
    text_ids: Int[Tensor, "text_ids"] | None = None,
    rows: int | None = None,
) -> Float[Tensor, ""]:
    """`sigmoid_loss` to rounding, value and all gradients, in O(n d + rows n) memory and with no recomputation.

    `rows` images at a time are scored against all texts (None: as many as fit 32 MiB). Three matrix products in all,
    as in the dense form: logits, image gradient, text gradient; that of a frozen side is left out. Kept for the
    backward pass are the two gradients, in the dtype of the loss, so that loss scaling acts before a cast to half.

    Raises ShapeError as `sigmoid_loss` does and for `rows` < 1, TrainingError when differentiated twice.
    There is no Triton kernel: none could be tested without a GPU.
    """
    pairs = Pairs.checked(image_embeds, text_embeds, logit_scale, logit_bias, image_ids, text_ids)
    size = pairs.batch_size()

    def walk(pairs: Pairs, sums: Sums) -> None:
        add_pairs(pairs, pairs.texts, pairs.ids, sums, empty_blocks(pairs, size, rows), own=True)

    return pair_sum(pairs, walk) / size


@dataclass(slots=True)
class Sums:
    """Running sum of pair costs and of its derivatives by bias, t * images and t * texts (None: not wanted)."""

    cost: Float[Tensor, ""]
    bias: Float[Tensor, ""]
    images: Float[Tensor, "images dim"] | None
    texts: Float[Tensor, "texts dim"] | None


def empty_blocks(pairs: Pairs, num_texts: int, rows: int | None) -> Float[Tensor, "2 rows texts"]:
    """Room for the logits and the costs of `rows` images; made once, as fresh pages double the price of the costs."""
    if rows is not None and rows < 1:
        raise ShapeError(f"rows, the height of a block of logits, must be at least 1, got {rows}")
    fitting = max(1, _BLOCK_BYTES // (num_texts * pairs.images.element_size()))
    return pairs.images.new_empty(2, min(rows or fitting, len(pairs.images)), num_texts)


def add_pairs(
    pairs: Pairs,
    texts: Float[Tensor, "texts dim"],
    text_ids: Int[Tensor, "kinds texts"],
    sums: Sums,
    blocks: Float[Tensor, "2 rows most_texts"],
    *,
    own: bool,
) -> None:
    """Add the cost of all images of `pairs` with `texts`; with `own`, text i belongs to image i."""
    images, t, zero = pairs.images, pairs.logit_scale.exp(), texts.new_zeros(())
    for start in range(0, len(images), max(1, blocks.shape[1])):
        part = slice(start, start + blocks.shape[1])
        block, costs = blocks[:, : len(images[part]), : len(texts)]
        signs = _signs(pairs.ids[:, part], text_ids, start if own else None)
        torch.addmm(pairs.logit_bias, images[part] * t, texts.T, out=block)
        _turn_positives(block, signs, start if own else None)
        # now all are negatives: cost log(exp(logit) + 1), slope sigmoid(logit)
        sums.cost += torch.logaddexp(block, zero, out=costs).sum()
        block.sigmoid_()
        _turn_positives(block, signs, start if own else None)
        sums.bias += block.sum()
        if sums.images is not None:
            sums.images[part].addmm_(block, texts)
        if sums.texts is not None:
            sums.texts.addmm_(block.T, images[part])


def _signs(
    image_ids: Int[Tensor, "kinds rows"], text_ids: Int[Tensor, "kinds texts"], diagonal: int | None
) -> Int[Tensor, "rows texts"] | None:
    """-1 for positives, 1 for negatives; None without ids, when the diagonal says it all."""
    if not len(image_ids):
        return None
    positive = positive_pairs(image_ids, text_ids)
    if diagonal is not None:
        positive.diagonal(diagonal).fill_(True)
    return positive.to(torch.int8).mul_(-2).add_(1)


def _turn_positives(
    block: Float[Tensor, "rows texts"], signs: Int[Tensor, "rows texts"] | None, diagonal: int | None
) -> None:
    if signs is not None:
        block.mul_(signs)
    elif diagonal is not None:
        block.diagonal(diagonal).neg_()


def pair_sum(pairs: Pairs, walk: Callable[[Pairs, Sums], None]) -> Float[Tensor, ""]:
    """Sum of all pair costs that `walk` adds up, differentiable by everything in `pairs` but the ids."""
    if not torch.is_grad_enabled():
        pairs = Pairs(*(tensor.detach() for tensor in pairs))
    with torch.autocast(pairs.images.device.type, enabled=False):
        return _PairSum.apply(*pairs, walk)  # pyright: ignore[reportReturnType]


class _PairSum(Function):
    """All derivatives are ready when the forward pass ends; the backward pass multiplies them by one number."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        texts: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor,
        ids: Tensor,
        walk: Callable[[Pairs, Sums], None],
    ) -> Tensor:
        by_images, by_texts, by_scale, _, _, _ = ctx.needs_input_grad
        sums = Sums(
            cost=images.new_zeros(()),
            bias=images.new_zeros(()),
            # <image, its gradient> gives the gradient of log t; either side will do
            images=torch.zeros_like(images) if by_images or (by_scale and not by_texts) else None,
            texts=torch.zeros_like(texts) if by_texts else None,
        )
        walk(Pairs(images, texts, logit_scale, logit_bias, ids), sums)
        for gradient in (sums.images, sums.texts):
            if gradient is not None:
                gradient.mul_(logit_scale.exp())
        by_log_t = None
        if by_scale:
            side, gradient = (images, sums.images) if sums.images is not None else (texts, sums.texts)
            # a dot a row, then their sum: one long dot product would lose digits in float32
            by_log_t = torch.einsum("nd,nd->n", side, gradient).sum()
        kept = (sums.images if by_images else None, sums.texts, by_log_t, sums.bias)
        ctx.save_for_backward(*kept)
        return sums.cost

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():
            raise TrainingError(
                "this loss keeps its gradients, not its graph: it cannot be differentiated twice; "
                "leave create_graph=True out, or use sigmoid_loss"
            )
        gradients = (None if kept is None else kept * grad for kept in ctx.saved_tensors)
        return (*gradients, None, None)
