"""numbers of a step -> metrics.jsonl, a progress line, TensorBoard or W&B if installed, and metrics.png at the end."""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from siglip.files import replacing, write_text
from siglip.training.config import TrainConfig

Numbers = Mapping[str, float]


class Reporter:
    """Says how a run goes, on screen and in `folder`. Only the first process has one.

    `start` is the step the run goes on from: later lines of an interrupted run are dropped from metrics.jsonl, so each
    step stands there once.
    """

    def __init__(self, folder: Path, *, start: int, config: TrainConfig) -> None:
        self._path = folder / "metrics.jsonl"
        self._steps, self._batch_size, self._log_every = config.steps, config.batch_size, config.log_every
        self._start = self._written = start
        self._began = self._written_at = time.monotonic()
        self._lines = _lines_before(self._path, start)
        write_text(self._path, "".join(line + "\n" for line in self._lines))
        self._bar = tqdm(
            total=config.steps, initial=start, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True
        )
        self._writers = _installed_writers(folder, start)

    def due(self, step: int) -> bool:
        """Whether numbers of this step are written: every `log_every` steps, and the first and last."""
        return step % self._log_every == 0 or step in (self._start + 1, self._steps)

    def step(self, step: int, numbers: Numbers) -> None:
        """Numbers of one finished update, written where it is due."""
        self._bar.update(step - self._bar.n)
        if not self.due(step):
            return
        now = time.monotonic()
        pairs_per_s = (step - self._written) * self._batch_size / (now - self._written_at)
        self._written, self._written_at = step, now
        numbers = {**numbers, "pairs_per_s": pairs_per_s}
        self._bar.set_postfix_str(_line(numbers))
        if self._bar.disable:
            left_s = (self._steps - step) * (now - self._began) / (step - self._start)
            self._say(f"step {step}/{self._steps}  {_line(numbers)}  {_duration(left_s)} left")
        self._write(step, numbers)

    def held_out(self, step: int, numbers: Numbers) -> None:
        """Numbers of held-out data after `step` updates, written always, on the line of that step.

        The `seconds` they took do not count against the speed of training.
        """
        self._written_at += numbers["seconds"]
        self._began += numbers["seconds"]
        found = {f"held_out/{name}": value for name, value in numbers.items()}
        self._say(f"step {step}  {_line(found)}")
        self._write(step, found)

    def _say(self, line: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            print(line, file=sys.stderr)

    def close(self) -> None:
        """End the progress bar and draw metrics.png, if matplotlib is installed."""
        self._bar.close()
        for writer in self._writers:
            writer.close()
        if importlib.util.find_spec("matplotlib") is not None:
            draw([json.loads(line) for line in self._lines], self._path.with_name("metrics.png"))

    def _write(self, step: int, numbers: Numbers) -> None:
        before = json.loads(self._lines[-1]) if self._lines else {}
        if before.get("step") == step:
            self._lines[-1] = json.dumps({**before, **numbers})
            write_text(self._path, "".join(line + "\n" for line in self._lines))
        else:
            self._lines.append(json.dumps({"step": step, **numbers}))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(self._lines[-1] + "\n")
        for writer in self._writers:
            writer.write(step, numbers)


def draw(rows: list[dict[str, int | float]], path: Path) -> None:
    """One small chart for each number over the steps."""
    from matplotlib.figure import Figure

    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "step"]
    columns = 3
    figure = Figure(figsize=(4.2 * columns, 2.8 * max(1, -(-len(names) // columns))), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // columns), columns, index + 1)
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "", color="#2a5d9f", linewidth=1.2)
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _lines_before(path: Path, step: int) -> list[str]:
    """Whole lines of an earlier run up to `step`; a last line cut by a crash is dropped."""
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines() if step and path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    return kept


def _line(numbers: Numbers) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}m{rest:02d}s"


class _TensorBoard:
    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # what an interrupted run wrote after the step it goes on from is not shown
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, folder: Path) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(dir=str(folder), name=folder.name, resume="allow")

    def write(self, step: int, numbers: Numbers) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def _installed_writers(folder: Path, start: int) -> "list[_TensorBoard | _WeightsAndBiases]":
    """TensorBoard if it is installed; W&B only if its key is set as well: nothing leaves this machine unasked."""
    writers: list[_TensorBoard | _WeightsAndBiases] = []
    if importlib.util.find_spec("tensorboard") is not None:
        writers.append(_TensorBoard(folder, start))
    if importlib.util.find_spec("wandb") is not None and os.environ.get("WANDB_API_KEY"):
        writers.append(_WeightsAndBiases(folder))
    return writers
