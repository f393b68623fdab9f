"""Fine-tune a classifier on folders of pictures, one a class: --set data.train=FOLDER data.held_out=FOLDER.

The image tower of a checkpoint gets a linear layer that starts as a linear probe of the pictures to train with, on the
pooled vector: its pooling head becomes one more layer of the tower. Both were fitted well before, so they learn slowly
and are not decayed. What is exported is the best of the steps that were judged on held-out data, the start among them;
judge it on other data than these.
"""

from siglip.data import Augment
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    return TrainConfig(
        task="classification",
        model=ModelSpec(source="google/siglip-base-patch16-224", classifier_start="probe"),
        data=DataSpec(train="data/train", augment=Augment(crop_area=0.8, flip=0.5)),
        optimizer=OptimizerSpec(lr=1e-4, image_lr_multiplier=0.1, weight_decay=0.0, warmup_steps=50),
        steps=1000,
        batch_size=64,
        micro_batch_size=32,
        evaluate_every=100,
        save_every=100,
        export="best",
    )
