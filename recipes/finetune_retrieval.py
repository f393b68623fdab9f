"""Fine-tune a checkpoint on captioned pictures of your own: small learning rate, little augmentation, no decay.

Weights that were trained well before are not decayed (Zhai et al. 2023, Section 4.5). Give the data with
--set data.train=... data.held_out=...
"""

from siglip.data import Augment
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec(source="google/siglip-base-patch16-224"),
        data=DataSpec(train="data/train", augment=Augment(crop_area=0.8, flip=0.5), positives="equal"),
        optimizer=OptimizerSpec(lr=1e-5, weight_decay=0.0, warmup_steps=100),
        steps=2000,
        batch_size=512,
        micro_batch_size=32,
    )
