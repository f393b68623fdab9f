"""A recipe -> a trained checkpoint."""

from siglip.training.config import DataSpec, ModelSpec, OptimizerSpec, TrainConfig
from siglip.training.loop import Stopped, train
from siglip.training.recipe import load_recipe

__all__ = ["DataSpec", "ModelSpec", "OptimizerSpec", "Stopped", "TrainConfig", "load_recipe", "train"]
