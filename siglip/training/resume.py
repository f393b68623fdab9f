"""A run's folder -> what there is to go on from, if it is the same run; and any checkpoint of it as a model."""

from collections.abc import Mapping
from pathlib import Path

import torch

from siglip.data import Source
from siglip.errors import CheckpointError, ConfigError
from siglip.training.config import TrainConfig
from siglip.training.lora import plain_model
from siglip.training.state import CheckpointFolder, RunState
from siglip.training.tasks import build, export

# what may change between stops: how often things are looked at, by whom batches are made, what is borne, where data lie
_FREE = {
    *("data.workers", "data.max_broken", "log_every", "evaluate_every", "save_every", "keep", "export", "tensorboard"),
    "wandb",
}
_PLACES = ("data.train", "data.held_out")

BEST = "best"


def claim(out: Path, config: TrainConfig, checkpoints: CheckpointFolder, *, resume: bool) -> RunState | None:
    """What there is to go on from; refuses to mix two runs. Raises ConfigError saying what differs."""
    if checkpoints.steps() and not resume:
        raise ConfigError(f"{out} holds a run already; pass --resume to go on with it, or another --out")
    saved = checkpoints.latest()
    if saved is None:
        return None
    before, now = TrainConfig.from_json(saved.config).flat(), config.flat()
    free = {*_FREE, *_PLACES, *(["steps"] if config.optimizer.decay == "constant" else [])}
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key) and key not in free]
    if changed:
        key = changed[0]
        more = f" ({len(changed) - 1} more differ)" if len(changed) > 1 else ""
        advice = "its numbers would be another run's: resume with what it began with, or take another --out"
        if key == "steps":
            advice = (
                f"with optimizer.decay={config.optimizer.decay} the number of steps decides the learning rate of each; "
                f"to train on, begin a new run with model.source={out}/export, or use decay=constant from the start"
            )
        raise ConfigError(
            f"the run in {out} began with {key}={before.get(key)}, now it is {now.get(key)}{more}; {advice}"
        )
    if config.steps < saved.step:
        raise ConfigError(f"the run in {out} has done {saved.step} steps already, so steps={config.steps} is too few")
    return saved


def check_data(config: TrainConfig, saved: RunState | None, sources: Mapping[str, Source]) -> dict[str, str]:
    """Fingerprints of the data; data that was moved is the same, other data is refused, also where it was before."""
    found = {key: source.fingerprint() for key, source in sources.items()}
    if saved is None:
        return found
    before, now = TrainConfig.from_json(saved.config).flat(), config.flat()
    for key in _PLACES:
        # one that was there first may be left out, and one may be added
        if {key} <= saved.fingerprints.keys() & found.keys() and saved.fingerprints[key] != found[key]:
            there = f", now it is {now.get(key)}, which holds other data" if before.get(key) != now.get(key) else ""
            raise ConfigError(
                f"the run began with {key}={before.get(key)}{there or ', which holds other data now'} (names or sizes "
                "differ); give the data it began with, wherever it is now, or another --out"
            )
    return found


def load_config(out: Path) -> TrainConfig:
    """The configuration of the run in `out`. Raises ConfigError if there is none."""
    file = out / "config.json"
    if not file.is_file() or not (out / "checkpoints").is_dir():
        raise ConfigError(f"{out} holds no run to resume; give the recipe too, or the folder of a run")
    return TrainConfig.from_json(file.read_text(encoding="utf-8"))


def find_checkpoint(path: Path) -> tuple[Path, int] | None:
    """The run and the step that a path names: a run (its newest), `RUN/best`, `RUN/checkpoints/best` or `step-...`.

    None for a path that is none of these. Raises CheckpointError for a run without that checkpoint.
    """
    run = path if (path / "checkpoints").is_dir() else path.parent
    run = run.parent if run.name == "checkpoints" else run
    checkpoints = CheckpointFolder(run / "checkpoints", keep=1)
    steps = checkpoints.steps()
    is_one = path in (run, run / "checkpoints") or path.name == BEST or path.parent == run / "checkpoints"
    # the model of a run that has ended is its export
    if not is_one or not (run / "checkpoints").is_dir() or (path == run and (run / "export").is_dir()):
        return None
    step = checkpoints.best_step() if path.name == BEST else steps[-1] if path == run and steps else None
    if path.name.removeprefix("step-").isdigit():
        step = int(path.name.removeprefix("step-"))
    if step not in steps:
        kept = ", ".join(f"step-{step:08d}" for step in steps) or "none yet"
        raise CheckpointError(
            f"{path} is not a checkpoint of the run {run}; there are: {kept}; {BEST!r} names the best of "
            "those that were "
            "judged on held-out data"
        )
    return run, step


def export_checkpoint(run: Path, step: int, folder: Path) -> None:
    """Write the model of one checkpoint, with the averaged weights if the run has any, as `from_pretrained` reads it.

    The checkpoint that the run began from must still be where it was, since it has the preparation.
    """
    state = CheckpointFolder(run / "checkpoints", keep=1).read(step)
    config = TrainConfig.from_json(state.config)
    model, processor = build(config, labels=state.labels)
    weights: dict[str, torch.Tensor] = {}
    for kind in ("model/", "average/"):
        weights |= {key.removeprefix(kind): value for key, value in state.tensors.items() if key.startswith(kind)}
    export(plain_model(model, weights, config.lora), processor, folder)
