"""The built-in model, second part: what nano.py made goes on with 64-pixel pictures while the learning rate falls."""

from siglip.data import Augment
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec(source="runs/nano/export", image_size=64),
        data=DataSpec(train="DATA/train", augment=Augment(crop_area=0.6, flip=0.5, recolour=0.5), positives="equal"),
        optimizer=OptimizerSpec(lr=1.5e-3, logit_lr_multiplier=2.0, warmup_steps=30),
        steps=850,
        batch_size=256,
        ema=0.99,
        evaluate_every=200,
        save_every=100,
    )
