"""SigLiT: a fresh text tower learns to describe what a locked image tower sees (Zhai et al. 2023, Section 4.2).

Every picture goes through the image tower once, its vector is looked up from then on; so pictures are not varied.
LION's weight decay of 1e-7 in the paper's code is not multiplied by the learning rate; ours is, so it is 1e-3 here.
"""

from siglip.releases import find_release
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig

IMAGE_TOWER = "google/siglip-base-patch16-224"


def recipe() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec(config=find_release(IMAGE_TOWER).config, preparation=IMAGE_TOWER, image_tower=IMAGE_TOWER),
        data=DataSpec(train="data/train", workers=8),
        trainable="text",
        optimizer=OptimizerSpec(name="lion", lr=1e-4, beta2=0.99, weight_decay=1e-3, warmup_steps=6_500),
        steps=65_000,  # 2 billion pairs
        batch_size=32_768,
        micro_batch_size=1_024,
        precision="bfloat16",
    )
