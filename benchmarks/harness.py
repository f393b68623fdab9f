"""Contestants -> seconds, measured in turn in one process -> a table on stderr and JSON on stdout.

Every ratio is the median over rounds of (peer's seconds / our seconds) within one round, so that what else the machine
does hits both alike. Wall-clock seconds decide; processor seconds are beside them, for machines that are not idle.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

Contestant = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one turn; `cpu_s` counts all threads, and the processes started and ended in it."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `ratio` is how many times longer the peer takes; `goal` is the ratio we want to reach.

    `peer_s` and `ours_s` are medians, `best_ratio` compares the shortest turns: where the machine was most its own.
    """

    what: str
    peer: str
    peer_s: float
    ours_s: float
    ratio: float
    cpu_ratio: float | None
    best_ratio: float
    goal: float | None
    met: bool | None


Timings = dict[str, list[Timing]]


def arguments(docstring: str | None, argv: list[str] | None, prog: str | None = None) -> argparse.Namespace:
    """The options every benchmark has."""
    return parser_of(docstring, prog).parse_args(argv)


def parser_of(docstring: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """What reads these options, for a benchmark that has more."""
    parser = argparse.ArgumentParser(prog, None, docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that it runs; the figures mean nothing")
    parser.add_argument("--rounds", type=int, help="how often each contestant has its turn")
    return parser


def race(
    contestants: Mapping[str, Contestant],
    *,
    rounds: int,
    warm_up: bool = True,
    processor_s: Mapping[str, Callable[[], float]] | None = None,
) -> Timings:
    """Time each contestant once a round; every other round backwards, so that none always comes after the same.

    `processor_s` tells the processor seconds so far of those whose work another process does.
    """
    if warm_up:
        for run in contestants.values():
            run()
    timings: Timings = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)[:: 1 if number % 2 == 0 else -1]
        for name in names:
            timings[name].append(timed(contestants[name], (processor_s or {}).get(name)))
    return timings


def timed(run: Contestant, processor_s: Callable[[], float] | None = None) -> Timing:
    clock = processor_s or _own_processor_s
    wall, cpu = time.perf_counter(), clock()
    run()
    return Timing(time.perf_counter() - wall, clock() - cpu)


def _own_processor_s() -> float:
    return sum(os.times()[:4])


def compare(what: str, timings: Timings, *, peer: str, ours: str, goal: float | None = None, cpu: bool = True) -> Row:
    """The row of the two contestants called `peer` and `ours`; without `cpu` where nobody knows the processor's."""
    pairs = list(zip(timings[peer], timings[ours], strict=True))
    ratio = median(theirs.wall_s / mine.wall_s for theirs, mine in pairs)
    return Row(
        what=what,
        peer=peer,
        peer_s=median(theirs.wall_s for theirs, _ in pairs),
        ours_s=median(mine.wall_s for _, mine in pairs),
        ratio=ratio,
        # the system counts hundredths of a second: short turns may show none
        cpu_ratio=sum(theirs.cpu_s for theirs, _ in pairs) / max(sum(mine.cpu_s for _, mine in pairs), 0.01)
        if cpu
        else None,
        best_ratio=min(theirs.wall_s for theirs, _ in pairs) / min(mine.wall_s for _, mine in pairs),
        goal=goal,
        met=None if goal is None else ratio >= goal,
    )


def publish(question: str, rows: list[Row], facts: dict[str, Any], *, quick: bool) -> None:
    """Print the table for people on stderr and everything as JSON on stdout."""
    say = sys.stderr.write
    say(f"\n{question}{' (--quick: figures mean nothing)' if quick else ''}\n")
    if rows:
        say(f"{'':34} {'peer':>10} {'ours':>10} {'peer/ours':>10} {'best':>7} {'cpu':>7} {'goal':>6}\n")
    for row in rows:
        verdict = {True: "reached", False: "NOT reached", None: ""}[None if quick else row.met]
        goal = "" if row.goal is None else f"{row.goal:.2f}"
        cpu = "" if row.cpu_ratio is None else f"{row.cpu_ratio:.2f}x"
        say(
            f"{row.what:34} {row.peer_s:9.3f}s {row.ours_s:9.3f}s {row.ratio:9.2f}x {row.best_ratio:6.2f}x "
            f"{cpu:>7} {goal:>6} {verdict}\n"
        )
    for name, value in facts.items():
        say(f"  {name}: {value}\n")
    result = {"question": question, "quick": quick, "machine": machine(), "rows": list(map(asdict, rows)), **facts}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """What was measured on, and what else ran on it."""
    features = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("torch", "transformers", "numpy", "pillow", "siglip")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": bool(features.get("avx512_bf16") or features.get("amx_bf16")),
        "load_1_min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
