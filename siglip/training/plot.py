"""The rows of metrics.jsonl -> metrics.png: loss, held-out shares, learning rate and gradient norm side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from siglip.files import replacing

Metrics = Sequence[Mapping[str, int | float]]

_COLOURS = ("#1f5fa8", "#d1702a", "#3a8a4d", "#8a4fa3", "#a03a4a", "#6b6b6b")


def draw(rows: Metrics, path: Path) -> None:
    """At most four panels; what was found without training is a dashed line."""
    from matplotlib.figure import Figure

    held_out = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if name.startswith("held_out/") and name not in ("held_out/seconds", "held_out/broken")
    ]
    panels = [("loss", ["loss"]), ("held-out shares", held_out), ("learning rate", ["lr"])]
    panels += [("gradient norm", ["gradient_norm"])]
    panels = [(title, names) for title, names in panels if any(_points(rows, name) for name in names)]
    figure = Figure(figsize=(4.6 * max(1, len(panels)), 3.4), layout="constrained")
    for place, (title, names) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        _curves(axes, rows, names)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        values = [value for name in names for _, value in _points(rows, name)]
        if title == "held-out shares":
            axes.set_ylim(0.0, min(1.0, 1.15 * max(values)) or 1.0)
        elif title != "learning rate" and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0.0)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _curves(axes: Any, rows: Metrics, names: Sequence[str]) -> None:
    last = max((row["step"] for row in rows), default=1.0)
    for name, colour in zip(names, _COLOURS * len(names), strict=False):
        points = _points(rows, name)
        label = name.removeprefix("held_out/")
        if len(points) == 1 and points[0][0] == 0:
            axes.plot([0, last], [points[0][1]] * 2, linestyle="--", color=colour, linewidth=1.0, label=label)
        else:
            marker = "o" if len(points) < 30 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=3, color=colour, linewidth=1.3, label=label)
    if len(names) > 1:
        axes.legend(fontsize=7, frameon=False)


def _points(rows: Metrics, name: str) -> list[tuple[int | float, int | float]]:
    return [(row["step"], row[name]) for row in rows if name in row]
