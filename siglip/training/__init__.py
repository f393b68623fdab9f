"""A recipe -> a trained checkpoint."""

from siglip.training.config import DataSpec, LoraSpec, ModelSpec, OptimizerSpec, TrainConfig
from siglip.training.loop import Stopped, train
from siglip.training.recipe import load_recipe

__all__ = ["DataSpec", "LoraSpec", "ModelSpec", "OptimizerSpec", "Stopped", "TrainConfig", "load_recipe", "train"]
