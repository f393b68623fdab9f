"""Gradients of a whole batch from micro batches that fit in memory, t' and b included.

The loss of a pair depends on the whole batch, so gradients of micro batches must not simply be added. As in GradCache
(Gao et al. 2021): embed every micro batch without a graph, take the loss of all embeddings and its gradient by them,
then embed each micro batch again with a graph and push its rows of that gradient through. Two forward passes instead
of one, memory of one micro batch.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

MicroBatch = TypeVar("MicroBatch")
Pair = tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]
Embed = Callable[[MicroBatch], Pair]
Loss = Callable[[Tensor, Tensor], Tensor]


def accumulate(
    embed: Embed[MicroBatch],
    loss: Loss,
    micro_batches: Sequence[MicroBatch],
    *,
    no_sync: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Float[Tensor, ""]:
    """Add the gradient of `loss` over all `micro_batches` to every parameter, and return the loss.

    `embed` maps a micro batch to its image and text embeddings; `loss` maps all of them to a scalar and may itself
    hold parameters (t', b). With one micro batch it is the plain step, without a second forward pass. Random numbers
    of the first pass are replayed in the second, so dropout is the same in both. `no_sync` holds back gradient
    exchange between processes until the last micro batch.
    """
    if len(micro_batches) == 1:
        value = loss(*embed(micro_batches[0]))
        value.backward()
        return value.detach()
    states: list[_RandomState] = []
    cached: list[Pair] = []
    with torch.no_grad():
        for micro_batch in micro_batches:
            states.append(_RandomState())
            cached.append(embed(micro_batch))
    leaves = [tuple(side.detach().requires_grad_() for side in pair) for pair in cached]
    with no_sync():
        value = loss(*(torch.cat(side) for side in zip(*leaves, strict=True)))
        value.backward()
    for index, (micro_batch, state, pair) in enumerate(zip(micro_batches, states, leaves, strict=True)):
        last = index == len(micro_batches) - 1
        with nullcontext() if last else no_sync(), state.replay():
            outputs = embed(micro_batch)
            live = [(output, leaf.grad) for output, leaf in zip(outputs, pair, strict=True) if output.requires_grad]
            torch.autograd.backward([output for output, _ in live], [grad for _, grad in live])
    return value.detach()


class _RandomState:
    """The state of the random generators at one moment, to be played again."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    @contextmanager
    def replay(self) -> Generator[None, None, None]:
        """Random numbers inside the block are those drawn since the state was taken; outside nothing changes."""
        with torch.random.fork_rng(devices=range(len(self._cuda))):
            torch.set_rng_state(self._cpu)
            if self._cuda:
                torch.cuda.set_rng_state_all(self._cuda)
            yield
