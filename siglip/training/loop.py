"""TrainConfig and a folder -> a trained, exported checkpoint; what happens in a step, and how no work is lost.

The folder holds `config.json` (the resolved configuration), `checkpoints/`, `metrics.jsonl`, `metrics.png`,
`broken.tsv` and, at the end, `export/`, which `from_pretrained` and transformers read.
"""

import math
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from siglip.data import Augment, Batch, Loader, LoaderSettings, Source, open_source
from siglip.distributed import all_gather_ints, init_from_environment, rank, shutdown, world_size
from siglip.errors import ConfigError, TrainingError
from siglip.files import write_text
from siglip.model import SiglipForImageClassification, SiglipModel
from siglip.processing import SiglipProcessor
from siglip.training.config import TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.objective import ClassObjective, Objective, PairObjective
from siglip.training.optimizers import make_optimizer, set_learning_rate
from siglip.training.report import Reporter
from siglip.training.schedule import learning_rate_factor
from siglip.training.setup import Model, build, choose_trainable
from siglip.training.state import CheckpointFolder, RunState, gather_state, scatter_state, whole


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}; --resume goes on from there")
        self.exit_code = 128 + signum


def train(config: TrainConfig, out: Path, *, resume: bool = False) -> Path:
    """Run the whole recipe in `out` and return the folder of the exported checkpoint.

    With `resume` the run goes on from its newest checkpoint, or begins if there is none, and ends with the same
    weights, bit for bit, as one that was never stopped. SIGINT and SIGTERM finish the step, save, and raise Stopped.
    Under torchrun every process calls this. Raises ConfigError, DataError, CheckpointError, and TrainingError for a
    loss that is not finite.
    """
    device = init_from_environment()
    try:
        return _Run(config, out, device, resume=resume).go()
    finally:
        shutdown()


class _Run:
    """The state of a run while it lasts."""

    def __init__(self, config: TrainConfig, out: Path, device: torch.device, *, resume: bool) -> None:
        self._config, self._out, self._device = config, out, device
        self._checkpoints = CheckpointFolder(out / "checkpoints", config.keep)
        saved = self._checkpoints.latest()
        _claim(out, config, resume=resume, begun=saved is not None)
        source = open_source(config.data.train)
        self._model, self._processor = build(config, labels=source.label_names)
        choose_trainable(self._model, config)
        cache = _locked_images(config, out, source, self._model, self._processor, device)
        self._objective = _objective(self._model, self._processor, config, device, cache)
        self._optimizer = make_optimizer(self._model.named_parameters(), config.optimizer)
        self._average = self._copied_weights() if config.ema is not None else None
        self._loader = Loader(
            source if cache is None else cache.subset(),
            self._processor,
            _loader_settings(config, images=cache is None),
            rank=rank(),
            world_size=world_size(),
            broken_log=out / "broken.tsv",
        )
        self._step, self._score, self._signal = 0, None, 0
        if saved is not None:
            scatter_state(saved.tensors, self._model, self._optimizer, self._average)
            self._step, self._score = saved.step, saved.score
            self._loader.load_state_dict({**self._loader.state_dict(), "consumed": saved.step * config.batch_size})

    def go(self) -> Path:
        """All steps that are left, then the export."""
        config = self._config
        reporter = Reporter(self._out, start=self._step, config=config) if rank() == 0 else None
        handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self._step < config.steps:
                for batch in self._loader:
                    self._advance(batch, reporter)
                    if self._step == config.steps:
                        break
            self._checkpoints.wait()
            return self._export()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if reporter is not None:
                reporter.close()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signal = signum

    def _advance(self, batch: Batch, reporter: Reporter | None) -> None:
        """One step, and what is due after it. The data position is the number of steps, so it needs no saving."""
        config = self._config
        numbers = self._update(batch)
        self._step += 1
        if reporter is not None:
            reporter.step(self._step, numbers)
        last = self._step == config.steps
        if config.data.held_out is not None and (last or self._step % config.evaluate_every == 0):
            self._evaluate(config.data.held_out, reporter)
        stop = max(number for (number,) in all_gather_ints([self._signal], self._device))
        if stop or last or self._step % config.save_every == 0:
            self._save()
        if stop and not last:
            self._checkpoints.wait()
            raise Stopped(stop, self._step)

    def _update(self, batch: Batch) -> dict[str, float]:
        """Change the weights once; they stay as they are if loss or gradient are not finite."""
        config, optimizer = self._config, self._config.optimizer
        # drawn anew from (seed, step, rank), so that a resumed run needs no memory of earlier draws
        torch.manual_seed((config.seed * 1_000_003 + self._step) * 65_536 + rank())
        self._model.train()
        self._optimizer.zero_grad(set_to_none=True)
        share = self._objective.backward(batch)
        if world_size() > 1:
            dist.all_reduce(share)
        loss = share.item() / world_size()
        norm = _clip(self._model, optimizer.clip_norm)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(self._not_finite(loss, norm, batch))
        factor = learning_rate_factor(
            self._step, steps=config.steps, warmup_steps=optimizer.warmup_steps, decay=optimizer.decay
        )
        set_learning_rate(self._optimizer, factor)
        self._optimizer.step()
        self._follow()
        lr = factor * optimizer.lr
        return {"loss": loss, "lr": lr, "gradient_norm": norm, "epoch": self._loader.epoch, **self._objective.numbers()}

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; a young average forgets its random start faster."""
        if self._average is None or self._config.ema is None:
            return
        decay = min(self._config.ema, (self._step + 1) / (self._step + 10))
        for name, parameter in self._model.named_parameters():
            self._average[name].lerp_(parameter, 1 - decay)

    def _not_finite(self, loss: float, norm: float, batch: Batch) -> str:
        names = self._out / f"not-finite-step-{self._step + 1}-rank-{rank()}.txt"
        write_text(names, "".join(f"{name}\n" for name in batch.names))
        some = ", ".join(batch.names[:5])
        return (
            f"loss {loss} and gradient norm {norm} at step {self._step + 1}, so the weights were not touched; "
            f"the batch held {some}, ... (all in {names}). Lower optimizer.lr, or look at these samples"
        )

    def _evaluate(self, held_out: str, reporter: Reporter | None) -> None:
        model = self._plain_copy()
        if reporter is not None:
            numbers = self._objective.held_out(model, open_source(held_out))
            self._score = numbers[self._objective.score]
            reporter.evaluation(self._step, numbers)

    def _save(self) -> None:
        tensors = gather_state(self._model, self._optimizer, self._average)
        if rank() == 0:
            config = self._config.to_json()
            self._checkpoints.save(RunState(step=self._step, tensors=tensors, score=self._score, config=config))

    def _export(self) -> Path:
        folder = self._out / "export"
        model = self._plain_copy()
        if rank() == 0:
            model.save_pretrained(folder)
            self._processor.save_pretrained(folder)
        return folder

    def _plain_copy(self) -> Model:
        """An unwrapped model with the averaged weights, or the current ones; every process must call this."""
        weights = self._average if self._average is not None else dict(self._model.named_parameters())
        with torch.device("meta"):
            copy = type(self._model)(self._model.config)
        copy.load_state_dict({name: whole(value).detach().clone() for name, value in weights.items()}, assign=True)
        return copy.eval()

    def _copied_weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._model.named_parameters()}


def _claim(out: Path, config: TrainConfig, *, resume: bool, begun: bool) -> None:
    """Make the folder ours, or refuse to mix two runs."""
    path = out / "config.json"
    if begun and not resume:
        raise ConfigError(f"{out} holds a run already; pass --resume to go on with it, or another --out")
    if begun and path.exists():
        before = TrainConfig.from_json(path.read_text(encoding="utf-8"))
        if _numbers_only(before) != _numbers_only(config):
            raise ConfigError(
                f"{path} differs from the recipe in what decides the numbers; resume with the recipe it began with"
            )
    if rank() == 0:
        write_text(path, config.to_json())


def _numbers_only(config: TrainConfig) -> TrainConfig:
    """Without what may change between stops: how often things are written, and by how many workers."""
    data = replace(config.data, workers=0)
    return replace(config, data=data, log_every=1, save_every=1, keep=1, evaluate_every=1)


def _loader_settings(config: TrainConfig, *, images: bool = True) -> LoaderSettings:
    data = config.data
    return LoaderSettings(
        batch_size=config.batch_size,
        seed=config.seed,
        augment=data.augment,
        workers=data.workers,
        images=images,
        max_broken=data.max_broken,
    )


def _locked_images(
    config: TrainConfig, out: Path, source: Source, model: Model, processor: SiglipProcessor, device: torch.device
) -> ImageCache | None:
    """The vectors of a locked image tower, computed before training starts; None if it is not locked."""
    if config.trainable != "text" or not config.data.cache_images or not isinstance(model, SiglipModel):
        return None
    if config.data.augment != Augment():
        raise ConfigError("a locked tower's vectors are computed once, so data.augment must stay at its default; "
                          "or set data.cache_images=false to run the tower in every step")  # fmt: skip
    cache = ImageCache(out.parent / "image-embeds", source, model, processor)
    quiet = rank() != 0 or not sys.stderr.isatty()
    with tqdm(total=len(source), desc="embedding pictures once", unit="picture", disable=quiet) as bar:
        cache.fill(_loader_settings(config), device, bar.update)
    return cache


def _objective(
    model: Model, processor: SiglipProcessor, config: TrainConfig, device: torch.device, cache: ImageCache | None
) -> Objective:
    for tower in (getattr(model, "vision_model", None), getattr(model, "text_model", None)):
        if tower is not None:
            tower.encoder.gradient_checkpointing = config.gradient_checkpointing
    if isinstance(model, SiglipForImageClassification):
        return ClassObjective(model, processor, config, device)
    return PairObjective(model, processor, config, device, cache)


def _clip(model: nn.Module, bound: float | None) -> float:
    """Scale gradients of the trainable parameters down to the bound; returns their norm before."""
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm: Any = clip_grad_norm_(trained, math.inf if bound is None else bound)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
