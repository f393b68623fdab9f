"""The built-in model, third part: what train_48px.py made sees 32-pixel pictures again, under more captions.

The words for this part are of more kinds, and emoji and clip art are met twice as often. A high learning rate undoes
little of what was learnt; the fourth part, train_48px.py once more, lets it fall.
"""

from siglip.data import Augment
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec(source="runs/nano-48px/export", image_size=32),
        data=DataSpec(train="DATA/train", augment=Augment(crop_area=0.5, flip=0.5, recolour=0.4), positives="equal"),
        optimizer=OptimizerSpec(lr=2e-3, logit_lr_multiplier=2.0, warmup_steps=100, decay="constant"),
        steps=1706,  # 7 passes over 60,593 pairs
        batch_size=256,
        ema=0.998,
    )
