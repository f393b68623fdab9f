"""The sigmoid loss of a batch spread over processes: images stay, texts and their gradients travel round the ring."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from siglip.distributed import Group, Shift, all_gather_ints, rank
from siglip.errors import ShapeError
from siglip.losses.chunked import Sums, add_pairs, empty_blocks, pair_sum
from siglip.losses.sigmoid import Pairs


def ring_sigmoid_loss(
    image_embeds: Float[Tensor, "images image_dim"],
    text_embeds: Float[Tensor, "texts text_dim"],
    *,
    logit_scale: Float[Tensor, "..."],
    logit_bias: Float[Tensor, "..."],
    image_ids: Int[Tensor, "image_ids"] | None = None,
    text_ids: Int[Tensor, "text_ids"] | None = None,
    rows: int | None = None,
    group: Group | None = None,
) -> Float[Tensor, ""]:
    """Share of this process in the `sigmoid_loss` of all processes of `group` (None: the default group), in nats.

    The share is world_size / n_all times the cost of the local images with all texts, so that the mean of the shares
    is the loss of the whole batch, and the mean of the gradients, which is what DistributedDataParallel and FSDP take,
    is its gradient, for embeddings, t and b alike. That holds for local batches of any size, zero rows included. The
    gradient of a text is collected from all processes on its way and comes home with it; all must scale their loss
    alike before `backward`, which itself talks to nobody.

    Texts are sent on while they are scored, gradients while the next texts are; each block is walked `rows` images at
    a time, as in `chunked_sigmoid_loss`. Memory is O(n d + rows n) for the largest local batch n, whatever the world.
    Source: arXiv 2303.15343, Section 3.3. Tested with gloo; NCCL takes the same calls but no GPU was at hand.

    Raises ShapeError as `chunked_sigmoid_loss` does, and on all processes if their batches do not fit together.
    """
    pairs = Pairs.checked(image_embeds, text_embeds, logit_scale, logit_bias, image_ids, text_ids)
    sizes = _agreed_sizes(pairs, kinds=(image_ids is not None, text_ids is not None), group=group)

    def walk(pairs: Pairs, sums: Sums) -> None:
        _walk_ring(pairs, sums, sizes, rows=rows, group=group)

    return pair_sum(pairs, walk) * (len(sizes) / sum(sizes))


def _agreed_sizes(pairs: Pairs, *, kinds: tuple[bool, bool], group: Group | None) -> list[int]:
    """Batch size of each process, once they agree on everything else that decides what is sent."""
    learns = torch.is_grad_enabled() and pairs.texts.requires_grad
    mine = (len(pairs.texts), pairs.texts.shape[1], pairs.texts.element_size(), *kinds, learns)
    everyone = all_gather_ints(mine, pairs.texts.device, group)
    if len({tuple(row[1:]) for row in everyone}) > 1:
        raise ShapeError(
            "the processes of a ring must agree on [dim, bytes a number, image ids given, text ids given, texts "
            f"learn], got {[row[1:] for row in everyone]} in the order of ranks"
        )
    sizes = [row[0] for row in everyone]
    if not sum(sizes):
        raise ShapeError("the batch is empty on all processes; give at least one pair")
    return sizes


def _walk_ring(pairs: Pairs, sums: Sums, sizes: list[int], *, rows: int | None, group: Group | None) -> None:
    """Score the local images against the texts of every process, one delivery from the left after the other."""
    size, (count, width), longest = len(sizes), pairs.texts.shape, max(sizes)
    # all send arrays of one shape, so that who receives knows it; they are made once and change places
    held = [F.pad(pairs.texts, (0, 0, 0, longest - count)), F.pad(pairs.ids, (0, longest - count))]
    coming = [torch.empty_like(tensor) for tensor in held]
    made, leaving, arriving = pairs.texts.new_zeros(3, 0 if sums.texts is None else longest, width)
    blocks = empty_blocks(pairs, longest, rows)
    onward = homeward = Shift([], [], group)
    for step in range(size):
        if step + 1 < size:
            onward = Shift(held, coming, group)
        owned = sizes[(rank(group) - step) % size]
        here = replace(sums, texts=None if sums.texts is None else made[:owned])
        add_pairs(pairs, held[0][:owned], held[1][:, :owned], here, blocks, own=step == 0)
        # what the processes before added to the gradient of these texts had all this time to arrive
        homeward.wait()
        made += arriving
        made, leaving = leaving.zero_(), made
        homeward = Shift([leaving], [arriving], group)
        onward.wait()
        held, coming = coming, held
    homeward.wait()
    if sums.texts is not None:
        sums.texts.copy_(arriving[:count])
