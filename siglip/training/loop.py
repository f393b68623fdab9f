"""TrainConfig and a folder -> a trained, exported checkpoint; what is done when, and how no work is lost.

The folder holds `config.json` (the resolved configuration), `checkpoints/`, `metrics.jsonl`, `metrics.png`,
`broken.tsv` and, at the end, `export/`, which `from_pretrained` and transformers read. A locked image tower's vectors
are beside it, in `image-embeds/`, for all runs of the folder above.
"""

import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from siglip.data import Batch, Loader, LoaderSettings, Source, open_source
from siglip.distributed import all_gather_ints, init_from_environment, rank, shutdown, world_size
from siglip.errors import SiglipError, TrainingError
from siglip.files import write_text
from siglip.model import PaliGemmaForConditionalGeneration, SiglipModel
from siglip.processing import AnyProcessor
from siglip.training.config import TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.learner import Learner
from siglip.training.report import Reporter, check_writers
from siglip.training.resume import check_data, claim, export_checkpoint
from siglip.training.state import CheckpointFolder, RunState
from siglip.training.tasks import TASKS, build, export

# pictures that go through a locked tower at a time, for each process
_CACHED_AT_ONCE = 64


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved. `exit_code` is that of a process the signal ended."""

    def __init__(self, signum: int, step: int, out: Path) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signum).name} after step {step}; to go on: siglip train --resume --out {out}"
        )
        self.exit_code = 128 + signum


def train(config: TrainConfig, out: Path, *, resume: bool = False) -> Path:
    """Run the whole recipe in `out` and return the folder of the exported checkpoint.

    With `resume` the run goes on from its newest checkpoint, or begins if there is none, and ends with the same
    weights, bit for bit, as one that was never stopped. SIGINT and SIGTERM finish the step, save, and raise Stopped; a
    second one does not wait. Under torchrun every process calls this. Raises ConfigError, DataError, CheckpointError,
    and TrainingError for a loss that is not finite.
    """
    ours = not dist.is_initialized()
    device = init_from_environment()
    try:
        return _Run(config, out, device, resume=resume).go()
    finally:
        if ours:
            shutdown()


class _Run:
    """The state of a run while it lasts."""

    def __init__(self, config: TrainConfig, out: Path, device: torch.device, *, resume: bool) -> None:
        self._config, self._out, self._device = config, out, device
        self._checkpoints = CheckpointFolder(out / "checkpoints", config.keep)
        check_writers(config)
        saved = claim(out, config, self._checkpoints, resume=resume)
        source = open_source(config.data.train, columns=config.data.columns)
        held_out = config.data.held_out
        self._labels, self._samples = list(source.label_names), len(source)
        self._held_out = None
        if held_out is not None:
            self._held_out = open_source(held_out, columns=config.data.columns, label_names=self._labels)
        named = {"data.train": source} if self._held_out is None else {
            "data.train": source, "data.held_out": self._held_out,
        }  # fmt: skip
        self._fingerprints = check_data(config, saved, named)
        if rank() == 0:
            write_text(out / "config.json", config.to_json())
        model, self._processor = build(config, labels=self._labels)
        if saved is None:
            TASKS[config.task].begin(model, self._processor, config, source, device)
        cache = _locked_images(config, out, source, model, self._processor, device)
        self._learner = Learner(model, self._processor, config, device, cache)
        self._loader = Loader(
            source if cache is None else cache.subset(),
            self._processor,
            loader_settings(config, images=cache is None),
            rank=rank(),
            world_size=world_size(),
            broken_log=out / (f"broken-{rank()}.tsv" if rank() else "broken.tsv"),
        )
        self._step, self._signal, self._judged = 0, 0, saved is not None and saved.score is not None
        if saved is not None:
            self._learner.load_state(saved.tensors)
            self._loader.load_state_dict(dict(saved.position))
            self._step = saved.step

    def go(self) -> Path:
        """All steps that are left, then the export."""
        reporter = None
        if rank() == 0:
            reporter = Reporter(
                self._out,
                start=self._step,
                config=self._config,
                score=self._learner.task.score,
                samples=self._samples,
            )
        try:
            with self._heeding_signals():
                if self._due() and not self._judged:
                    # new, or stopped between saving and this
                    if self._step == 0 and self._config.export == "best":
                        self._save()  # what it begins with may stay the best
                    self._judge(reporter)
                if self._step < self._config.steps:
                    self._learn(reporter)
                self._checkpoints.wait()
                exported = self._export()
            if reporter is not None:
                reporter.conclude(exported)
            return self._out / "export"
        finally:
            if reporter is not None:
                reporter.close()

    def _learn(self, reporter: Reporter | None) -> None:
        """The steps that are left. Where batches end too early, what was learned until then is saved."""
        batches = iter(self._loader)
        while self._step < self._config.steps:
            try:
                batch = next(batches)
            except SiglipError:
                # others may be within a step, and all save together
                if reporter is not None and self._step and world_size() == 1:
                    self._save()
                    self._checkpoints.wait()
                    reporter.say(f"step {self._step} is saved; --resume goes on from there")
                raise
            self._advance(batch, reporter)

    @contextmanager
    def _heeding_signals(self) -> Generator[None, None, None]:
        def note(signum: int, frame: FrameType | None) -> None:
            self._signal = signum
            if rank() == 0:
                # print may be in the middle of a line of its own
                os.write(2, b"\nsiglip: stops when this step is done and saved; a second signal ends it at once\n")
            # a second one finds what was there before us, and is not waited for
            signal.signal(signum, before[signal.Signals(signum)])

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _advance(self, batch: Batch, reporter: Reporter | None) -> None:
        """One step, and what is due after it."""
        config = self._config
        try:
            numbers = self._learner.update(batch, self._step)
        except TrainingError:
            names = self._out / f"not-finite-step-{self._step + 1}-rank-{rank()}.txt"
            write_text(names, "".join(f"{name}\n" for name in batch.names))
            raise
        self._step += 1
        stop = max(number for (number,) in all_gather_ints([self._signal], self._device))
        last = self._step == config.steps
        # whoever asks to stop does not wait for an evaluation
        judge = self._due() and (last or not stop)
        if reporter is not None:
            if reporter.due(self._step):
                # read from the device only where somebody will see it
                numbers |= {"epoch": self._loader.epoch, **self._learner.task.numbers()}
            reporter.step(self._step, numbers)
        if stop or last or judge or self._step % config.save_every == 0:
            self._save()
        if judge:
            self._judge(reporter)
        if stop and not last:
            self._checkpoints.wait()
            # torchrun ends all processes when the first has left
            all_gather_ints([0], self._device)
            raise Stopped(stop, self._step, self._out)

    def _due(self) -> bool:
        """Whether held-out data is looked at after this step."""
        every = self._config.evaluate_every
        return self._held_out is not None and (self._step == self._config.steps or self._step % every == 0)

    def _judge(self, reporter: Reporter | None) -> None:
        """Held-out numbers of the weights as they are; before the first step also what they are to be compared with."""
        began = time.monotonic()
        if reporter is not None:
            reporter.judging()
        task, source = self._learner.task, self._held_out
        assert source is not None
        found = task.held_out(self._learner.plain_copy(), source)
        if self._step == 0:
            found |= task.baseline(source)
        if reporter is not None:
            reporter.held_out(self._step, {**found, "seconds": time.monotonic() - began})
            self._checkpoints.rate(self._step, found[task.score])

    def _save(self) -> None:
        tensors = self._learner.state()
        if rank() == 0:
            state = RunState(
                step=self._step,
                tensors=tensors,
                position=self._loader.state_dict(),
                config=self._config.to_json(),
                labels=self._labels,
                fingerprints=self._fingerprints,
            )
            self._checkpoints.save(state)

    def _export(self) -> int:
        """Write what is to be used; returns the step it is from."""
        model = self._learner.plain_copy()
        best = self._checkpoints.best_step() if self._config.export == "best" and rank() == 0 else None
        if best is not None:
            export_checkpoint(self._out, best, self._out / "export")
        elif rank() == 0:
            export(model, self._processor, self._out / "export")
        return self._config.steps if best is None else best


def loader_settings(config: TrainConfig, *, images: bool = True) -> LoaderSettings:
    """How the batches of a run are made; `images=False` reads no pictures."""
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
    config: TrainConfig, out: Path, source: Source, model: nn.Module, processor: AnyProcessor, device: torch.device
) -> ImageCache | None:
    """The vectors of a locked image tower, computed before training starts; None if it is not locked."""
    if not config.caches_images or not isinstance(model, SiglipModel | PaliGemmaForConditionalGeneration):
        return None
    cache = ImageCache(out.parent / "image-embeds", source, model, processor)
    settings = replace(loader_settings(config), batch_size=_CACHED_AT_ONCE * world_size())
    quiet = rank() != 0 or not sys.stderr.isatty()
    with tqdm(total=len(source), desc="embedding pictures once", unit="picture", disable=quiet) as bar:
        cache.fill(settings, device, bar.update)
    return cache
