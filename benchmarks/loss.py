"""How long does the sigmoid loss take, forward and backward, and how much memory, against open_clip's SigLipLoss?

A turn is one step on n unit vectors of width 768 in float32, in a process of its own so that its peak memory is its
own; seconds do not count the start. The dense forms keep several n * n arrays: where those would not fit into the free
memory, as foretold from the size before, they are left out and named. Memory is read from /proc, so only on Linux.
"""

import inspect
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Row, Timing, Timings, arguments, compare, publish, timed
from siglip.losses import chunked_sigmoid_loss, sigmoid_loss
from tests.losses.batches import open_clip_losses

WIDTH = 768
SIZES = {2048: 9, 4096: 7, 8192: 5, 16384: 3, 32768: 1, 65536: 1}  # rows: rounds
_ROOT = Path(__file__).resolve().parent.parent


def contestants() -> dict[str, Callable[..., Tensor]]:
    """Everyone's loss, called with images, texts, log t and b."""
    peer = open_clip_losses().SigLipLoss

    def of_peer(images: Tensor, texts: Tensor, log_t: Tensor, b: Tensor, **options: Any) -> Tensor:
        return peer(**options)(images, texts, log_t.exp(), b)

    def ours(loss: Callable[..., Tensor], images: Tensor, texts: Tensor, log_t: Tensor, b: Tensor) -> Tensor:
        return loss(images, texts, logit_scale=log_t, logit_bias=b)

    found = {"open_clip dense": of_peer, "dense": partial(ours, sigmoid_loss)}
    if "chunk_size" in inspect.signature(peer).parameters:
        found["open_clip chunk_size=1024"] = partial(of_peer, chunk_size=1024)
    return found | {"chunked": partial(ours, chunked_sigmoid_loss)}


def turn(name: str, rows: int) -> dict[str, float]:
    """Seconds and peak bytes above the inputs of one step, in this process."""
    loss = contestants()[name]

    def inputs(rows: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        sides = [F.normalize(torch.randn(rows, WIDTH, generator=generator), dim=-1) for _ in range(2)]
        return [tensor.requires_grad_() for tensor in (*sides, torch.tensor([math.log(10.0)]), torch.tensor([-10.0]))]

    loss(*inputs(64)).backward()  # the libraries load on first use
    given = inputs(rows)
    before = peak_bytes(reset=True)
    timing = timed(lambda: loss(*given).backward())
    return {"wall_s": timing.wall_s, "cpu_s": timing.cpu_s, "bytes": peak_bytes() - before}


def peak_bytes(*, reset: bool = False) -> int:
    """The most memory this process has held since the start or the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def free_bytes() -> int:
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert found is not None
    return 1024 * int(found[1])


def race(names: list[str], rows: int, rounds: int) -> tuple[Timings, dict[str, float]]:
    """Turns as in the harness, each in a new process; and the median peak bytes of each contestant."""
    timings: Timings = {name: [] for name in names}
    peaks: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            command = [sys.executable, "-m", "benchmarks.loss", "--turn", name, str(rows)]
            done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
            result = json.loads(done.stdout)
            peaks[name].append(result.pop("bytes"))
            timings[name].append(Timing(**result))
    return timings, {name: sorted(found)[len(found) // 2] for name, found in peaks.items()}


def measure(sizes: dict[int, int]) -> tuple[list[Row], dict[str, Any]]:
    rows: list[Row] = []
    facts: dict[str, Any] = {"open_clip": version("open_clip_torch")}
    if "open_clip chunk_size=1024" not in contestants():
        facts["chunk_size"] = "this open_clip has none"
    peaks: dict[str, float] = {}
    for size, rounds in sizes.items():
        # n * n arrays grow fourfold when n doubles
        foretold = {name: 4 * peak for name, peak in peaks.items() if name != "chunked"}
        free = free_bytes()
        names = [name for name in contestants() if foretold.get(name, 0) < 0.8 * free]
        for name in foretold.keys() - names:
            facts[f"n = {size}: left out"] = f"{name}, about {foretold[name] / 1e9:.0f} GB of {free / 1e9:.0f} GB free"
        timings, found = race(names, size, rounds)
        peaks = foretold | found
        for name in names:
            seconds = sorted(timing.wall_s for timing in timings[name])[rounds // 2]
            facts[f"n = {size}: {name}"] = f"{seconds:.2f} s, {found[name] / 1e6:.0f} MB above the inputs"
        for peer in (name for name in names if name != "chunked"):
            rows.append(compare(f"n = {size}, chunked against {peer}", timings, peer=peer, ours="chunked", goal=1.0))
    return rows, facts


def main(argv: list[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["--turn"]:
        print(json.dumps(turn(given[1], int(given[2]))))
        return
    options = arguments(__doc__, given)
    sizes = {256: 1, 512: 1} if options.quick else SIZES
    sizes = {size: options.rounds or rounds for size, rounds in sizes.items()}
    rows, facts = measure(sizes)
    publish("Sigmoid loss, forward and backward", rows, facts, quick=options.quick)


if __name__ == "__main__":
    main()
