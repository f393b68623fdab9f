"""Train a model as a recipe says, and export it.

RECIPE.py is a Python file with a function recipe() that returns a TrainConfig,
as those in the folder recipes. --set changes its values, by their path.
--dry-run shows what would be done and what it would cost, and writes nothing.

A run keeps its state in DIR. Ctrl-C and SIGTERM finish the step and save, a
second one ends at once. With --resume it goes on from the newest checkpoint, or
begins if there is none, and ends with the very weights of a run that was never
stopped; the recipe may then be left out. The trained model is in DIR/export.
For several devices: torchrun -m siglip train RECIPE.py ...

for example:
  siglip train recipes/nano/train_32px.py --set data.train=shards --dry-run
  siglip train recipes/nano/train_32px.py --set steps=900 --out first
  siglip train --resume --out first
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siglip.cli import inputs, output
from siglip.errors import ConfigError, clip
from siglip.files import existing, in_megabytes


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip train RECIPE.py [--set KEY=VALUE ...] [--out DIR] [options]"
    parser.add_argument("recipe", metavar="RECIPE.py", nargs="?", type=Path, help="the file with recipe()")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        type=_assignment,
        help="values to replace, such as optimizer.lr=3e-4; none, true and false are understood",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the run (default: runs/RECIPE)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with the run in DIR")
    how.add_argument("--dry-run", action="store_true", help="print configuration, parameters, memory and time")
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    assignments = _once(arguments.set)
    recipe: Path | None = arguments.recipe
    if recipe is None and not (arguments.resume and arguments.out):
        raise inputs.UsageError("give the path of a recipe, such as recipes/nano/train_32px.py, or --resume --out DIR")
    if recipe is not None and not (existing(recipe) and recipe.is_file()):
        raise ConfigError(
            f"there is no file {clip(str(recipe))}; give the path of a recipe, such as recipes/nano/train_32px.py"
        )
    out: Path = arguments.out or Path("runs") / ("" if recipe is None else recipe.stem)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; a run needs a folder, choose another one with --out")
    from siglip.training import Stopped, load_recipe, train
    from siglip.training.resume import load_config

    config = (load_config(out) if recipe is None else load_recipe(recipe)).with_overrides(assignments)
    if arguments.dry_run:
        from siglip.training.estimate import estimate

        form, facts = output.form_of(arguments), estimate(config)
        if form == "table":
            output.print_facts(_screen(facts, config.changed()), summary=facts["summary"])
        else:
            output.print_record(form, facts)
        return 0
    try:
        folder = train(config, out, resume=arguments.resume)
    except Stopped as stopped:
        print(f"siglip: {stopped}", file=sys.stderr)
        return stopped.exit_code
    output.print_record(output.form_of(arguments), {"export": str(folder)})
    return 0


def _screen(facts: Mapping[str, Any], changed: Mapping[str, object]) -> list[tuple[str, str]]:
    """What a dry run found out, on a screen; the whole configuration is in the other forms."""
    data, memory, time = facts["data"], facts["memory_bytes"], facts["time"]
    parts = [f"{name} {in_megabytes(count)}" for name, count in memory.items() if count and name != "total"]
    rows = [
        ("data", f"{data['samples']} samples, {data['held_out_samples'] or 'none'} held out"),
        ("memory", ", ".join(parts)),
        ("time", f"{time['step_s']:.2g} s a step, {time['making_the_batch_s']:.2g} s to make its batch"),
        ("", f"{time['pairs_per_s']:.3g} samples/s, from {time['measured']}"),
    ]
    rows += [
        (
            "" if place else "learning",
            f"{name}: {group['parameters']:,} numbers, lr={group['lr']:.3g}, weight_decay={group['weight_decay']:.3g}",
        )
        for place, (name, group) in enumerate(facts["groups"].items())
    ]
    words = [f"{key}={value}" for key, value in changed.items()]
    return [*rows, ("recipe", " ".join(words)), ("", "all else by default; --json prints every value")]


def _assignment(word: str) -> tuple[str, str]:
    key, sign, value = word.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {clip(repr(word))}; the recipe comes before --set")
    return key, value


def _once(assignments: list[tuple[str, str]]) -> dict[str, str]:
    keys = [key for key, _ in assignments]
    for key in keys:
        if keys.count(key) > 1:
            raise inputs.UsageError(f"--set gives {key} twice; give it once")
    return dict(assignments)
