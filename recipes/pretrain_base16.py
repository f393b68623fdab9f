"""SigLIP B/16 from scratch, as in the paper: batch 32k, AdamW with beta2 0.95, cosine (Zhai et al. 2023, Section 4.6).

Its weight decay of 1e-4 is not multiplied by the learning rate; ours is, so it is 0.1 here.
"""

from siglip.data import Augment
from siglip.releases import find_release
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec(
            config=find_release("google/siglip-base-patch16-224").config,
            preparation="google/siglip-base-patch16-224",
        ),
        data=DataSpec(train="data/train", augment=Augment(flip=0.5), workers=8),
        optimizer=OptimizerSpec(lr=1e-3, beta2=0.95, weight_decay=0.1, warmup_steps=20_000),
        steps=275_000,  # 9 billion pairs
        batch_size=32_768,
        micro_batch_size=256,
        precision="bfloat16",
    )
