"""Go on training at another resolution, given with --set model.image_size=...: position embeddings are resized.

Few steps are needed, since only the scale of things is new; the learning rate falls from the start. Small pictures
first and large ones at the end is also the cheapest way to train from scratch: see nano.py.
"""

from siglip.data import Augment
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec(source="google/siglip-base-patch16-224", image_size=384),
        data=DataSpec(train="data/train", augment=Augment(crop_area=0.8, flip=0.5), workers=8),
        optimizer=OptimizerSpec(lr=1e-5, weight_decay=0.0, warmup_steps=100),
        steps=5000,
        batch_size=2048,
        micro_batch_size=32,
        precision="bfloat16",
    )
