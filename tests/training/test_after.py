"""What can be done with a run when it has stopped or ended, and what it says of itself."""

import importlib
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from siglip.checkpoints import fingerprint
from siglip.cli.main import main
from siglip.errors import CheckpointError, ConfigError
from siglip.model import SiglipModel
from siglip.training import train
from siglip.training.plot import draw
from tests.conftest import ROOT
from tests.training.conftest import metrics, small_run, write_shard
from tests.training.test_resume import check_same_run, stop_at


def test_few_different_captions_are_told_at_the_start(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight colours, five samples each: of 7 others in a batch, 4 of 39 have the caption of a picture."""
    train(small_run(shard, steps=1), tmp_path / "pairs")
    told = (
        "the first 40 samples have 8 different captions, so in a batch of 8 a picture meets its own caption about 0.7 "
    )
    assert capsys.readouterr().err.count(told) == 1
    train(small_run(shard, steps=1), tmp_path / "pairs", resume=True)
    train(small_run(shard, steps=1, data_positives="equal"), tmp_path / "equal")
    train(small_run(write_shard(tmp_path / "few.tar", 8), steps=1), tmp_path / "distinct")
    assert "different captions" not in capsys.readouterr().err


def test_every_kept_checkpoint_becomes_a_model(shard: Path, tmp_path: Path) -> None:
    """The last one is the export, bit for bit; the best is the one with the best held-out number."""
    run = tmp_path / "run"
    train(small_run(shard, steps=4, evaluate_every=2, ema=0.5, data_held_out=str(shard)), run)
    found = {int(row["step"]): row["held_out/text_to_image/recall@1"] for row in metrics(run) if row["step"] in (2, 4)}
    best = max((score, step) for step, score in found.items())[1]
    for name in ("checkpoints/step-00000004", "best", "checkpoints/best"):
        assert main(["convert", str(run / name), str(tmp_path / name), "--to", "huggingface"]) == 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (
        tmp_path / "checkpoints" / "step-00000004", run / "export",
    ))  # fmt: skip
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert (
        main(["convert", str(run / f"checkpoints/step-{best:08d}"), str(tmp_path / "same"), "--to", "big_vision"]) == 0
    )
    assert fingerprint(SiglipModel.from_pretrained(tmp_path / "same")) == fingerprint(
        SiglipModel.from_pretrained(tmp_path / "best")
    )
    with pytest.raises(CheckpointError, match="step-00000002, step-00000004"):
        from siglip.training.resume import find_checkpoint

        find_checkpoint(run / "checkpoints" / "step-00000003")


def test_the_folder_of_a_run_is_its_model_once_it_has_ended(shard: Path, tmp_path: Path) -> None:
    config = small_run(shard, steps=4)
    train(config, tmp_path / "whole")
    ended = SiglipModel.from_pretrained(tmp_path / "whole")
    assert fingerprint(ended) == fingerprint(SiglipModel.from_pretrained(tmp_path / "whole" / "export"))
    stop_at(tmp_path / "whole", tmp_path / "part", 2)
    with pytest.raises(CheckpointError, match=r"has not ended.*siglip convert .*part DST"):
        SiglipModel.from_pretrained(tmp_path / "part")
    with pytest.raises(CheckpointError, match="a checkpoint of a run"):
        SiglipModel.from_pretrained(tmp_path / "part" / "checkpoints" / "step-00000002")
    assert main(["convert", str(tmp_path / "part"), str(tmp_path / "model"), "--to", "huggingface"]) == 0
    SiglipModel.from_pretrained(tmp_path / "model")


def test_moved_data_resumes_without_a_recipe_and_other_data_does_not(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_run(shard, steps=4)
    train(config, tmp_path / "whole")
    stop_at(tmp_path / "whole", tmp_path / "part", 2)
    (tmp_path / "part" / "config.json").write_text(config.to_json())
    (tmp_path / "elsewhere").mkdir()
    moved = shard.rename(tmp_path / "elsewhere" / shard.name)
    command = ["train", "--resume", "--out", str(tmp_path / "part")]
    assert main([*command, "--set", f"data.train={ROOT / 'samples'}"]) != 0
    assert "holds other data" in capsys.readouterr().err
    assert main([*command, "--set", f"data.train={moved}"]) == 0
    check_same_run(tmp_path / "whole", tmp_path / "part")
    assert main(["train", "--resume", "--out", str(tmp_path / "none")]) != 0
    assert "holds no run" in capsys.readouterr().err


def test_steps_may_change_only_where_they_decide_nothing_else(shard: Path, tmp_path: Path) -> None:
    constant = small_run(shard, steps=4, optimizer_decay="constant")
    train(constant, tmp_path / "long")
    train(replace(constant, steps=2), tmp_path / "longer")
    train(constant, tmp_path / "longer", resume=True)
    ours, theirs = (load_file(tmp_path / run / "export" / "model.safetensors") for run in ("long", "longer"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    with pytest.raises(ConfigError, match="has done 4 steps already"):
        train(replace(constant, steps=3), tmp_path / "longer", resume=True)
    cosine = small_run(shard, steps=2)
    train(cosine, tmp_path / "cosine")
    with pytest.raises(ConfigError, match=r"with optimizer\.decay=cosine .* model\.source="):
        train(replace(cosine, steps=4), tmp_path / "cosine", resume=True)


def test_a_run_that_made_the_model_worse_says_so(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = train(small_run(shard, steps=40, batch_size=16, optimizer_logit_lr_multiplier=10.0), tmp_path / "good")
    config = small_run(shard, steps=3, optimizer_lr=1.0, data_held_out=str(shard))
    train(
        replace(config, model=replace(config.model, source=str(good), config=None, preparation=None)), tmp_path / "bad"
    )
    rows = metrics(tmp_path / "bad")
    before, after = (row["held_out/text_to_image/recall@1"] for row in (rows[0], rows[-1]))
    assert after < before
    told = capsys.readouterr().err
    assert f"{before:.4f} before training, {after:.4f} now ({after - before:+.4f})" in told
    assert "made the model WORSE" in told
    assert "best before training" in told


def test_the_best_is_exported_also_where_nothing_was_better_than_the_start(shard: Path, tmp_path: Path) -> None:
    good = train(small_run(shard, steps=40, batch_size=16, optimizer_logit_lr_multiplier=10.0), tmp_path / "good")
    config = small_run(shard, steps=3, optimizer_lr=1.0, data_held_out=str(shard), export="best")
    config = replace(
        config, model=replace(config.model, source=str(good), config=None, preparation=None, initial_bias=None)
    )
    exported = load_file(train(config, tmp_path / "bad") / "model.safetensors")
    for key, value in load_file(good / "model.safetensors").items():
        assert torch.equal(exported[key], value), key


def test_without_held_out_data_the_best_is_the_last_and_that_is_said(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [train(small_run(shard, steps=3, export=which), tmp_path / which) for which in ("last", "best")]
    assert capsys.readouterr().err.count("export=best, but no data.held_out was given to choose by") == 1
    last, best = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(value, best[key]) for key, value in last.items())


def test_a_checkpoint_is_saved_before_it_is_judged(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out data that vanish in the run cost an evaluation, not the work; the resumed run judges what was not."""
    from siglip.training.tasks.pairs import PairTask

    real = PairTask.held_out
    calls: list[int] = []

    def vanish(self: PairTask, *arguments: object) -> dict[str, float]:
        calls.append(len(calls))
        if len(calls) == 2:
            raise OSError("gone")
        return real(self, *arguments)

    monkeypatch.setattr(PairTask, "held_out", vanish)
    config = small_run(shard, steps=4, evaluate_every=2, save_every=100, data_held_out=str(shard))
    with pytest.raises(OSError, match="gone"):
        train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert [row["step"] for row in metrics(tmp_path / "run") if "held_out/seconds" in row] == [0, 2, 4]
    monkeypatch.undo()
    train(config, tmp_path / "whole")
    check_same_run(tmp_path / "whole", tmp_path / "run")


def test_no_service_is_told_unless_the_recipe_asks(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "wandb.py").write_text("def init(**options):\n    raise RuntimeError('told')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("WANDB_API_KEY", "key")
    importlib.invalidate_caches()
    train(small_run(shard, steps=1), tmp_path / "quiet")
    assert not (tmp_path / "quiet" / "tensorboard").exists()
    with pytest.raises(ConfigError, match="wandb=true, but it does not start: told; run `wandb login`"):
        train(small_run(shard, steps=1, wandb=True), tmp_path / "asked")


def _drawn(rows: list[dict[str, float]], path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The panels of a plot by their titles."""
    from matplotlib.figure import Figure

    made: list[Figure] = []
    keep = Figure.savefig
    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", lambda self, *a, **k: (made.append(self), keep(self, *a, **k))[1])
        draw(rows, path)
    return {axes.get_title(loc="left"): axes for axes in made[0].axes}


def _curves(axes: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}


def test_the_plot_has_few_panels_whatever_there_is_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"step": 0, "held_out/top1": 0.8, "held_out/majority": 0.7, "held_out/seconds": 9.0, "held_out/loss": 2.0},
        *({"step": s, "loss": 3.0 / s, "lr": 0.1, "gradient_norm": 1.0, "t": 10.0, "b": -10.0} for s in range(1, 9)),
        {"step": 9, "held_out/top1": 0.9, "held_out/seconds": 9.0, "held_out/loss": 1.0},
    ]
    panels = _drawn(rows, tmp_path / "metrics.png", monkeypatch)
    assert list(panels) == ["loss", "held out", "learning rate", "gradient norm"]
    assert _curves(panels["held out"]) == {"top1": [0.8, 0.9], "majority": [0.7, 0.7]}
    assert _curves(panels["loss"]) == {"loss": [3.0 / s for s in range(1, 9)], "held-out loss": [2.0, 1.0]}
    # close enough for a change of a tenth to be seen, and from the first step to the last everywhere
    assert panels["held out"].get_ylim() == pytest.approx((0.66, 0.94))
    assert all(axes.get_xlim() == pytest.approx((0.0, 9.18)) for axes in panels.values())
    legend = panels["held out"].get_legend().get_window_extent()
    assert legend.y1 <= panels["held out"].get_window_extent().y0
    assert list(_drawn(rows[:1], tmp_path / "first.png", monkeypatch)) == ["loss", "held out"]


def test_many_noisy_steps_are_drawn_with_their_running_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [1.0 + step % 2 for step in range(400)]
    rows = [{"step": step + 1, "loss": value} for step, value in enumerate(values)]
    faint, strong = _drawn(rows, tmp_path / "metrics.png", monkeypatch)["loss"].get_lines()
    assert list(faint.get_ydata()) == values and faint.get_alpha() < 0.5
    mean = list(strong.get_ydata())
    assert strong.get_label() == "loss, running mean"
    assert mean[200] == pytest.approx(np.mean(values[190:211]))
    assert mean[0] == pytest.approx(np.mean(values[:11]))


def test_two_interrupts_end_a_run_that_waits_for_ever(shard: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from siglip.training import TrainConfig, train\n"
        "import siglip.data.batch as batch\n"
        "def hang(*_):\n"
        "    Path(sys.argv[3]).touch()\n"
        "    while True: time.sleep(60)\n"
        "batch.BatchMaker.batch = hang\n"
        "train(TrainConfig.from_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))\n"
    )
    (tmp_path / "config.json").write_text(small_run(shard, data_workers=1).to_json())
    command = [sys.executable, "-c", code, tmp_path / "config.json", tmp_path / "run", tmp_path / "hangs"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 100
        while not (tmp_path / "hangs").exists() and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert child.poll() is None
        while child.poll() is None and time.monotonic() < until + 250:
            # again, since two that come before the first is heeded are one
            child.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert child.wait(timeout=1) != 0
    finally:
        child.kill()


# libraries are imported once, and each run forked: a start costs seconds
STOPPER = """
import os, sys, time
from pathlib import Path
import torch._dynamo
from siglip.cli.main import main
import torch
torch.set_num_threads(1)
sys.modules["matplotlib"] = None
folder = Path(sys.argv[1])

def workers_of(pid):
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(each) for each in file.read_text().split()] if file.exists() else []

for name, number, only_workers in (("int", 2, 0), ("term", 15, 0), ("worker", 15, 1), ("killed", 9, 1)):
    child = os.fork()
    if child == 0:
        code = main(["train", str(folder / "recipe.py"), "--out", str(folder / name)])
        sys.stderr.flush()
        os._exit(code)
    lines = folder / name / "metrics.jsonl"
    while not (workers_of(child) and lines.exists() and lines.read_text()):
        time.sleep(0.001)
    # workers first, which job managers may reach first, too
    for pid in [*workers_of(child), *([] if only_workers else [child])]:
        os.kill(pid, number)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_signals_that_reach_the_workers_too_stop_a_run_properly(shard: Path, tmp_path: Path) -> None:
    config = small_run(shard, steps=400, save_every=400, data_workers=2)
    (tmp_path / "recipe.py").write_text(
        "from siglip.training import TrainConfig\n"
        f"def recipe():\n    return TrainConfig.from_json({config.to_json()!r})\n"
    )
    command = [sys.executable, "-c", STOPPER, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=True)
    assert "Traceback" not in done.stderr
    ends = [int(word) for word in done.stdout.split() if word.isdigit()]
    assert ends == [130, 143, 0, 1], done.stderr
    for name in ("int", "term"):
        assert len(list((tmp_path / name / "checkpoints").glob("step-*"))) == 1
        assert not (tmp_path / name / "export").exists()
    assert (tmp_path / "worker" / "export").is_dir()
    assert "error: a data worker was ended by SIGKILL" in done.stderr
    (saved,) = (tmp_path / "killed" / "checkpoints").glob("step-*")
    assert f"step {int(saved.name[5:])} is saved; --resume goes on from there" in done.stderr
