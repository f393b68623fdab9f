"""numbers of a step -> metrics.jsonl, a progress line, and what the recipe asks for; metrics.png when the run ends."""

import importlib.util
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from siglip.errors import ConfigError
from siglip.files import write_text
from siglip.training.config import TrainConfig
from siglip.training.plot import draw

Numbers = Mapping[str, float]

_BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}  {desc}"


class Reporter:
    """Says how a run goes, on screen and in `folder`. Only the first process has one.

    `start` is the step the run goes on from: later lines of an interrupted run are dropped from metrics.jsonl, so each
    step stands there once. `score` is the held-out number that is shown; all are in metrics.jsonl. `samples` are those
    to learn from. Raises ConfigError if Weights & Biases, asked for, does not start.
    """

    def __init__(self, folder: Path, *, start: int, config: TrainConfig, score: str, samples: int) -> None:
        self._path, self._score = folder / "metrics.jsonl", f"held_out/{score}"
        self._steps, self._batch_size, self._log_every = config.steps, config.batch_size, config.log_every
        self._start, self._wants_best = start, config.export == "best"
        self._written = start
        self._began = self._written_at = time.monotonic()
        self._writers = _writers(folder, start, config)
        self._lines = _lines_before(self._path, start)
        write_text(self._path, "".join(line + "\n" for line in self._lines))
        self._shown: dict[str, str] = {}
        for line in self._lines:
            if self._score in (row := json.loads(line)):
                self._remember(row)
        self._unit = "pairs" if config.task == "contrastive" else "samples"
        begins = f"goes on after step {start}" if start else "begins"
        self.say(f"{folder} {begins}: {config.steps} steps of {config.batch_size} of {samples} {self._unit}")
        self._bar = tqdm(
            total=config.steps, initial=start, disable=not sys.stderr.isatty(), dynamic_ncols=True, bar_format=_BAR
        )

    def due(self, step: int) -> bool:
        """Whether numbers of this step are written: every `log_every` steps, and the first and last."""
        return step % self._log_every == 0 or step in (self._start + 1, self._steps)

    def step(self, step: int, numbers: Numbers) -> None:
        """Numbers of one finished update, written where it is due."""
        now = time.monotonic()
        left = f"{_duration((self._steps - step) * (now - self._began) / (step - self._start))} left"
        if self.due(step):
            pairs_per_s = (step - self._written) * self._batch_size / (now - self._written_at)
            self._written, self._written_at = step, now
            self._shown |= {"loss": f"loss {numbers['loss']:#.4g}", "speed": f"{pairs_per_s:.3g} {self._unit}/s"}
            numbers = {**numbers, "pairs_per_s": pairs_per_s}
            if self._bar.disable:
                self.say(f"step {step}/{self._steps}  {_line(numbers)}  {left}")
            self._write(step, numbers)
        self._show(left)
        self._bar.update(step - self._bar.n)

    def judging(self) -> None:
        """Held-out data is looked at now, which takes a while."""
        self._show("judging held-out data")

    def held_out(self, step: int, numbers: Numbers) -> None:
        """Numbers of held-out data after `step` updates, written always, on the line of that step.

        The `seconds` they took do not count against the speed of training.
        """
        self._written_at += numbers["seconds"]
        self._began += numbers["seconds"]
        found = {f"held_out/{name}": value for name, value in numbers.items()}
        self._remember(found)
        self._show("")
        shown = found if self._bar.disable else {self._score: found[self._score]}
        self.say(f"step {step}/{self._steps}  {_line(shown)}")
        if "held_out/broken" in found:
            self.say(f"{found['held_out/broken']:.0f} held-out samples are broken and were left out")
        self._write(step, found)

    def conclude(self, exported: int) -> None:
        """Say at the end of a run what it changed, and plainly if that was for the worse; `exported` is a step."""
        rows: list[dict[str, int | float]] = [json.loads(line) for line in self._lines]
        found = {int(row["step"]): row[self._score] for row in rows if self._score in row}
        if self._wants_best and not found:
            self.say(
                "export=best, but no data.held_out was given to choose by; the weights of the last step are exported"
            )
        if len(found) < 2 or 0 not in found:
            return
        self._bar.close()
        before, after, name = found[0], found[exported], self._score.replace("held_out/", "held-out ")
        where = "now" if exported == self._steps else f"after step {exported}, which was the best and is exported"
        line = f"{name}: {before:.4f} before training, {after:.4f} {where} ({after - before:+.4f})"
        least = {"majority": "always saying the most frequent class", "zero_shot": "the zero-shot answers of the model"}
        others = {
            words: rows[0][f"held_out/{key}"] for key, words in least.items() if f"held_out/{key}" in rows[0]
        }  # fmt: skip
        line += "".join(f"; {words}: {value:.4f}" for words, value in others.items())
        self.say(line)
        if exported == 0:
            self.say(
                "no step was better than the start, so the start is exported. Lower optimizer.lr, or look at the data"
            )
        if after < before:
            step, best = max(found.items(), key=lambda pair: pair[1])
            where = "before training" if step == 0 else f"after step {step}, {best:.4f}"
            self.say(
                f"this run made the model WORSE on held-out data; it was best {where}. Lower optimizer.lr, train for "
                "fewer steps, or look at the data"
            )
        for words, value in others.items():
            if after < value:
                self.say(f"the trained model is WORSE than {words}; train longer, or with another learning rate")

    def close(self) -> None:
        """End the progress bar and draw metrics.png, if matplotlib is installed."""
        self._bar.close()
        for writer in self._writers:
            writer.close()
        rows = [json.loads(line) for line in self._lines]
        if importlib.util.find_spec("matplotlib") is None:
            self.say("metrics.png is not drawn, since matplotlib is missing: pip install 'siglip[train]'")
        elif rows:
            draw(rows, self._path.with_name("metrics.png"))

    def _remember(self, found: Mapping[str, int | float]) -> None:
        self._shown["score"] = f"{self._score.split('/')[-1]} {found[self._score]:.3f}"

    def _show(self, now: str) -> None:
        """The numbers that a person follows, in the same places always, and what happens `now`."""
        parts = [self._shown[name] for name in ("loss", "score", "speed") if name in self._shown]
        self._bar.set_description_str("  ".join([*parts, now]).rstrip(), refresh=now != "")

    def say(self, line: str) -> None:
        if sys.stderr.isatty():
            line = textwrap.fill(line, shutil.get_terminal_size().columns, break_on_hyphens=False)
        with tqdm.external_write_mode(file=sys.stderr):
            print(line, file=sys.stderr)

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
    if hours:
        return f"{hours}h{minutes:02d}"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


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
        try:
            self._run = wandb.init(dir=str(folder), name=folder.name, resume="allow")
        except Exception as error:
            raise ConfigError(
                f"wandb=true, but it does not start: {error}; run `wandb login`, or set wandb=false"
            ) from error

    def write(self, step: int, numbers: Numbers) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def check_writers(config: TrainConfig) -> None:
    """Raise ConfigError if the recipe asks for a library that is not installed."""
    for name, wanted in (("tensorboard", config.tensorboard), ("wandb", config.wandb)):
        if wanted and importlib.util.find_spec(name) is None:
            raise ConfigError(f"{name}=true, but {name} is not installed: pip install {name}, or set {name}=false")


def _writers(folder: Path, start: int, config: TrainConfig) -> "list[_TensorBoard | _WeightsAndBiases]":
    """Those the recipe asks for, and no other: nothing leaves this machine unasked."""
    writers: list[_TensorBoard | _WeightsAndBiases] = [_TensorBoard(folder, start)] if config.tensorboard else []
    return [*writers, _WeightsAndBiases(folder)] if config.wandb else writers
