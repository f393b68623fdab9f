"""A run that is killed, stopped or moved ends with the very weights of one that was left alone."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from siglip.cli.main import main
from siglip.data import Augment
from siglip.errors import ConfigError
from siglip.training import TrainConfig, train
from tests.conftest import ROOT
from tests.training.conftest import metrics, signal_after, small_run, write_shard

KILLS = 6

# libraries are imported once, and each run forked: a start costs seconds
KILLER = """
import os, random, signal, sys, threading, time
from pathlib import Path
import torch._dynamo
from siglip.training import TrainConfig, train
torch.set_num_threads(1)
sys.modules["matplotlib"] = None  # a plot takes longer than the run
folder, kills = Path(sys.argv[1]), int(sys.argv[2])

def steps(name):
    lines = folder / name / "metrics.jsonl"
    return lines.read_text().count("\\n") if lines.exists() else 0

def run(config, name, kill=None):
    child = os.fork()
    if child == 0:
        # a data worker whose parent is killed while it starts lives on; it must not hold the pipe of this test open
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr = open(os.devnull, "w")
        if kill is not None:
            # by a thread of its own, which stands still when the run does: on a busy machine too it comes in time
            threading.Thread(target=die, args=(name, steps(name) + kill), daemon=True).start()
        train(config, folder / name, resume=True)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0

def die(name, aim):
    # while it starts, or somewhere in or after its first or second step
    while steps(name) < aim:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.1))
    os.kill(os.getpid(), signal.SIGKILL)

for workers in ("0", "1"):
    config = TrainConfig.from_json((folder / f"{workers}.json").read_text())
    assert run(config, f"whole-{workers}")
    killed = sum(not run(config, f"killed-{workers}", kill % 3) for kill in range(kills))
    assert run(config, f"killed-{workers}")
    print(killed, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)  # such workers
"""


def varied_run(shard: Path, **changes: Any) -> TrainConfig:
    """All that could depend on where it was stopped: augmentation, dropout, drawn captions, an average."""
    config = small_run(shard, ema=0.9, data_augment=Augment(crop_area=0.5, flip=0.5, randaugment=1), **changes)
    assert config.model.config is not None
    vision = replace(config.model.config.vision_config, attention_dropout=0.2)
    towers = replace(config.model.config, vision_config=vision)
    return replace(config, model=replace(config.model, config=towers))


def check_same_run(one: Path, other: Path) -> None:
    """Weights bit for bit, and each step's loss written once."""
    ours, theirs = (load_file(run / "export" / "model.safetensors") for run in (one, other))
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    lines, others = ([(row["step"], row["loss"]) for row in metrics(run) if row["step"]] for run in (one, other))
    assert lines == others


def test_a_run_killed_at_random_moments_ends_with_the_same_weights(shard: Path, tmp_path: Path) -> None:
    for workers in (0, 1):
        config = varied_run(shard, steps=40, data_workers=workers)
        (tmp_path / f"{workers}.json").write_text(config.to_json())
    command = [sys.executable, "-c", KILLER, tmp_path, str(KILLS)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=250, check=True, start_new_session=True
    )
    assert min(map(int, done.stdout.split())) == KILLS
    for workers in (0, 1):
        check_same_run(tmp_path / f"whole-{workers}", tmp_path / f"killed-{workers}")
        assert [row["step"] for row in metrics(tmp_path / f"killed-{workers}")] == [*range(1, 41)]
        assert not list((tmp_path / f"killed-{workers}" / "checkpoints").glob(".*"))
    check_same_run(tmp_path / "whole-0", tmp_path / "whole-1")


def test_sigterm_saves_and_exits_143_and_resume_ends_the_same(
    shard: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = varied_run(shard, steps=30, save_every=30)
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from siglip.training import TrainConfig\n"
        f"def recipe():\n    return TrainConfig.from_json({config.to_json()!r})\n"
    )
    with pytest.MonkeyPatch.context() as patched:
        signal_after(1, signal.SIGTERM, patched)
        assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 143
    told = capfd.readouterr().err.splitlines()[-1]
    assert told == f"siglip: stopped by SIGTERM after step 2; to go on: siglip train --resume --out {tmp_path / 'run'}"
    assert len(metrics(tmp_path / "run")) == 2
    assert not (tmp_path / "run" / "export").exists()
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert capfd.readouterr().out == f"export\t{tmp_path / 'run' / 'export'}\n"
    train(config, tmp_path / "whole")
    check_same_run(tmp_path / "run", tmp_path / "whole")


def test_another_number_of_workers_may_go_on(shard: Path, tmp_path: Path) -> None:
    config = varied_run(shard, steps=4)
    train(config, tmp_path / "whole")
    stop_at(tmp_path / "whole", tmp_path / "part", 2)
    more = replace(config, data=replace(config.data, workers=1), save_every=1)
    train(more, tmp_path / "part", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "part")


def test_other_data_may_not(shard: Path, tmp_path: Path) -> None:
    config = varied_run(shard, steps=4)
    train(config, tmp_path / "run")
    write_shard(shard, 41)
    with pytest.raises(ConfigError, match=r"began with data.train=.*, which holds other data now \(names or sizes"):
        train(config, tmp_path / "run", resume=True)


def stop_at(whole: Path, part: Path, step: int) -> None:
    """The folder as it was when step `step` was saved, and some more lines of metrics were written."""
    (part / "checkpoints").mkdir(parents=True)
    name = f"step-{step:08d}"
    (whole / "checkpoints" / name).rename(part / "checkpoints" / name)
    (part / "metrics.jsonl").write_text((whole / "metrics.jsonl").read_text() + '{"step": 9, "lo')
