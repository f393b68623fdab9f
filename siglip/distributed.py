"""Processes that work on one batch together: who we are, one step round the ring, all-gather with gradients.

With one process (no process group, or a group of one) every function is the identity and talks to nobody. `group`
None is the default group. All processes of a group must call the same functions in the same order.
"""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd import Function

from siglip.errors import ConfigError

Group = dist.ProcessGroup
Item = TypeVar("Item")

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

# The group that `shutdown` left. Freed from here it lets other threads run; a DistributedDataParallel model that lives
# longer than the group would free it while it holds the interpreter, and wait for ever for a thread that wants it.
_left: Group | None = None


def init_from_environment() -> torch.device:
    """Join the processes that torchrun started; returns the device of this one. End with `shutdown`.

    `cuda:LOCAL_RANK` where CUDA is available, with NCCL for what is on it; the CPU and gloo elsewhere. Without
    torchrun's variables this is the only process and no group is made. Raises ConfigError if some of them are missing.
    """
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if "WORLD_SIZE" in os.environ and missing:
        raise ConfigError(
            f"WORLD_SIZE is set but not {', '.join(missing)}; start the processes with torchrun, or unset it"
        )
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not missing and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return device


def shutdown() -> None:
    """Leave the process group, if there is one."""
    global _left
    if dist.is_initialized():
        _left = dist.group.WORLD
        dist.destroy_process_group()


def rank(group: Group | None = None) -> int:
    """Number of this process in the group, from 0."""
    return dist.get_rank(group) if dist.is_initialized() else 0


def world_size(group: Group | None = None) -> int:
    """Processes in the group."""
    return dist.get_world_size(group) if dist.is_initialized() else 1


class Shift:
    """Tensors on their way from every process to its right neighbour (rank + 1), and here from the left one.

    Sending starts at once and goes on while the caller computes. Until `wait` returns, `sent` must not be written and
    `received` not be used. Shapes and dtypes are the same on all processes; empty tensors are not sent.
    """

    def __init__(self, sent: Sequence[Tensor], received: Sequence[Tensor], group: Group | None = None) -> None:
        size, here = world_size(group), rank(group)
        operations: list[dist.P2POp] = []
        for mine, theirs in zip(sent, received, strict=True):
            if size == 1:
                theirs.copy_(mine)
            elif mine.numel():
                operations.append(dist.P2POp(dist.isend, mine, group=group, group_peer=(here + 1) % size))
                operations.append(dist.P2POp(dist.irecv, theirs, group=group, group_peer=(here - 1) % size))
        self._pending = dist.batch_isend_irecv(operations) if operations else []

    def wait(self) -> None:
        """Return when both neighbours are served."""
        for work in self._pending:
            work.wait()
        self._pending.clear()


def all_gather_ints(values: Sequence[int], device: torch.device, group: Group | None = None) -> list[list[int]]:
    """The `values` of every process, in the order of ranks; as many on each."""
    if world_size(group) == 1:
        return [list(values)]
    mine = torch.tensor(list(values), dtype=torch.int64, device=device)
    everyone = [torch.empty_like(mine) for _ in range(world_size(group))]
    dist.all_gather(everyone, mine, group=group)
    return [row.tolist() for row in everyone]


def all_gather_object(value: Item, group: Group | None = None) -> list[Item]:
    """The picklable `value` of every process, in the order of ranks."""
    everyone: list[Any] = [value] * world_size(group)
    if len(everyone) > 1:
        dist.all_gather_object(everyone, value, group=group)
    return everyone


def all_gather(tensor: Shaped[Tensor, "rows *rest"], group: Group | None = None) -> Shaped[Tensor, "all_rows *rest"]:
    """The rows of every process, in the order of ranks; their numbers may differ.

    The gradient of a row is the sum of what all processes have for it, and goes to the process it came from.
    """
    if world_size(group) == 1:
        return tensor
    sizes = [size for (size,) in all_gather_ints([len(tensor)], tensor.device, group)]
    return _AllGather.apply(tensor, sizes, group)  # pyright: ignore[reportReturnType]


class _AllGather(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int], group: Group | None) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        # rows are padded to the longest share: collectives want equal shapes
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        everyone = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(everyone, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(everyone, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total.split(ctx.sizes)[rank(ctx.group)], None, None
