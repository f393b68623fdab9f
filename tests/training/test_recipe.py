"""Recipes are read as the files they are, and what is wrong with them is told in one line."""

from pathlib import Path

import pytest

from siglip.cli.main import main
from siglip.errors import ConfigError
from siglip.training import TrainConfig, load_recipe

GOOD = """
from siglip.training import DataSpec, ModelSpec, TrainConfig

def recipe():
    return TrainConfig(model=ModelSpec(source="nano"), data=DataSpec(train="pairs"), steps=7)
"""


def test_a_recipe_is_called_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    config = load_recipe(tmp_path / "mine.py")
    assert isinstance(config, TrainConfig)
    assert config.steps == 7
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"mine\.py has no function recipe\(\); a recipe is"),
        ("def recipe():\n    return 3\n", r"recipe\(\) of .*mine\.py returned int; a recipe is"),
        ("def recipe():\n    x = {}\n    return x['a']\n", r"mine\.py, line 3: KeyError: 'a'"),
        ("def recipe(size):\n    return size\n", r"recipe\(\) of .*mine\.py: TypeError: .*argument"),
        ("import nothing_of_this_name\n", r"mine\.py, line 1: ModuleNotFoundError"),
        ("def recipe(:\n", r"mine\.py, line 1: invalid syntax"),
        (GOOD.replace("steps=7", "steps=0"), r"mine\.py, line 5: TrainConfig.steps must be at least 1, got 0"),
        (GOOD.replace("steps=7", "step=7"), r"mine\.py, line 5: TrainConfig has no key 'step'; did you mean 'steps'\?"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--set", "optimizer.lrr=1"], 1, "optimizer has no key 'lrr'; did you mean 'lr'?"),
        (["--set", "optimiser.lr=1"], 1, "the configuration has no key 'optimiser.lr'; did you mean 'optimizer.lr'?"),
        (["--set", "steps=many"], 1, "steps must be a whole number, got 'many'"),
        (["--set", "optimizer.name=sgd"], 1, "optimizer.name must be 'adamw', 'adafactor' or 'lion', got 'sgd'"),
        (["--set", "steps"], 2, "expected KEY=VALUE, got 'steps'"),
        (["--set", "steps=1", "steps=2"], 2, "--set gives steps twice"),
        (["--resume", "--dry-run"], 2, "not allowed with argument"),
        (["--set", "data.train=nowhere"], 1, "nowhere is missing; expected shards"),
    ],
)
def test_the_command_line_tells_what_is_wrong_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    assert main(["train", str(tmp_path / "mine.py"), "--out", str(tmp_path / "run"), *words]) == code
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert message in told


def test_a_recipe_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "none.py")]) == 1
    assert "none.py; give the path of a recipe" in capsys.readouterr().err
