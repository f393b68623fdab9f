"""The rows of metrics.jsonl -> metrics.png: loss and held-out numbers side by side, what steered them below."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from siglip.files import replacing

Metrics = Sequence[Mapping[str, int | float]]

_COLOURS = ("#1f5fa8", "#d1702a", "#3a8a4d", "#8a4fa3", "#a03a4a", "#6b6b6b")
# from as many points on, single batches are drawn faint and their running mean strong
_MANY = 40
# shares of one kind are told apart by shade: the first, which is the strictest, is the strongest
_SHADES = (1.0, 0.55, 0.3)
_STEPS = (1, 2, 5, 10)


def draw(rows: Metrics, path: Path) -> None:
    """At most four panels; what was found without training is a dashed line."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in rows for name in row))
    shares = [name for name in names if name.startswith("held_out/")]
    shares = [name for name in shares if name.split("/")[1] not in ("seconds", "broken", "loss")]
    panels = [
        [("loss", ["loss", "held_out/loss"]), ("held out", shares)],
        [("learning rate", ["lr"]), ("gradient norm", ["gradient_norm"])],
    ]
    drawn = [[(title, [name for name in of if name in names]) for title, of in row] for row in panels]
    drawn = [[(title, of) for title, of in row if of] for row in drawn]
    drawn = [row for row in drawn if row]
    heights = [3.4, 2.0][: len(drawn)]
    figure = Figure(figsize=(9.6, sum(heights)), layout="constrained")
    grids = figure.add_gridspec(len(drawn), 1, height_ratios=heights)
    for place, row in enumerate(drawn):
        grid = grids[place].subgridspec(1, len(row))
        for column, (title, of) in enumerate(row):
            axes = figure.add_subplot(grid[column])
            _curves(axes, rows, of)
            _frame(axes, title, [value for name in of for _, value in _points(rows, name)])
            axes.set_xlim(0, 1.02 * max(1, *(row["step"] for row in rows)))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _frame(axes: Any, title: str, values: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=_STEPS))
    lowest, highest = min(values), max(values)
    # a loss that falls far, a gradient that leaps far above what is usual
    usual = statistics.median(values) if title == "gradient norm" else lowest
    if title == "held out":
        # shares, closely enough for their changes to be seen
        room = max(0.04, 0.08 * (highest - lowest))
        axes.set_ylim(max(0.0, lowest - room), min(1.0 + room / 4, highest + room))
    elif title != "learning rate" and lowest > 0 and highest > 20 * usual:
        axes.set_yscale("log")
        return
    else:
        axes.set_ylim(0.0, 1.05 * highest or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=_STEPS))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))


def _curves(axes: Any, rows: Metrics, names: Sequence[str]) -> None:
    last = max((row["step"] for row in rows), default=1.0)
    kinds = list(dict.fromkeys(name.split("@")[0] for name in names))
    for place, name in enumerate(names):
        kind = name.split("@")[0]
        colour = _COLOURS[kinds.index(kind) % len(_COLOURS)]
        nth = [other for other in names[:place] if other.split("@")[0] == kind]
        style = {"color": colour, "alpha": _SHADES[min(len(nth), 2)], "linewidth": 1.3}
        label = name.replace("held_out/loss", "held-out loss").removeprefix("held_out/").replace("_", " ")
        points = _points(rows, name)
        if len(points) == 1 and points[0][0] == 0 and last > 0:
            axes.plot([0, last], [points[0][1]] * 2, **style, linestyle="--", label=label)
            continue
        steps, values = [step for step, _ in points], [value for _, value in points]
        if len(points) >= _MANY and not name.startswith("held_out/") and name != "lr":
            axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(steps, _running_mean(values), **style, label=f"{label}, running mean")
        else:
            axes.plot(steps, values, **style, marker="o" if len(points) < _MANY else "", markersize=3, label=label)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        # below the axes, where no curve is covered
        axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(-0.02, -0.16))


def _running_mean(values: Sequence[float]) -> list[float]:
    """Over a twentieth of all values, those on both sides alike."""
    half = max(1, len(values) // 40)
    windows = [values[max(0, place - half) : place + half + 1] for place in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _points(rows: Metrics, name: str) -> list[tuple[int | float, int | float]]:
    return [(row["step"], row[name]) for row in rows if name in row]
