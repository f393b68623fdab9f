"""The built-in model, second part: what train_32px.py made sees 48-pixel pictures while the learning rate falls.

Pictures are varied less: the last passes are about what they look like when the model is used.
"""

from siglip.data import Augment
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec(source="runs/nano-32px/export", image_size=48),
        data=DataSpec(train="DATA/train", augment=Augment(crop_area=0.7, flip=0.5, recolour=0.3), positives="equal"),
        optimizer=OptimizerSpec(lr=1.5e-3, logit_lr_multiplier=2.0, warmup_steps=30),
        steps=2000,  # 12 passes over 42,769 pairs
        batch_size=256,
        ema=0.995,
        evaluate_every=250,
    )
