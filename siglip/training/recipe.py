"""RECIPE.py -> TrainConfig. A recipe is the user's own code: a Python file with a function `recipe()`."""

import traceback
import types
from pathlib import Path

from siglip.errors import ConfigError, clip
from siglip.training.config import TrainConfig

_EXPECTED = "a recipe is a Python file with a function recipe() that returns a siglip.training.TrainConfig"


def load_recipe(path: Path) -> TrainConfig:
    """Run the file and its function. Raises ConfigError saying where it went wrong; writes nothing."""
    module = types.ModuleType("recipe")
    module.__file__ = str(path)
    try:
        # not imported, which would leave a __pycache__ beside it
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except OSError as error:
        raise ConfigError(f"{clip(str(path), 200)}: {error.strerror}; {_EXPECTED}") from error
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise ConfigError(_told(error, path)) from error
    function = module.__dict__.get("recipe")
    if not callable(function):
        raise ConfigError(f"{path} has no function recipe(); {_EXPECTED}")
    try:
        config = function()
    except Exception as error:
        raise ConfigError(_told(error, path)) from error
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"recipe() of {path} returned {type(config).__name__}; {_EXPECTED}")
    return config


def _told(error: Exception, path: Path) -> str:
    """What was raised, and the last line of the recipe on the way there."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else f"recipe() of {path}"
    kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
    return f"{where}: {kind}{error}"
