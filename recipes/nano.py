"""A small SigLIP for 64-pixel drawings, with the vocabulary of the built-in model: --set data.train=SHARDS.

Equal captions and concepts are positives, since drawings of one thing come in many styles. Icons are black on white, so
they are recoloured. b starts at the log-odds of a pair in the batch; t and b learn faster than the towers.
"""

import math

from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.data import Augment
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    size = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3}
    batch_size = 256
    return TrainConfig(
        model=ModelSpec(
            config=SiglipConfig.from_text_vision_configs(
                SiglipTextConfig(vocab_size=8000, max_position_embeddings=16, num_hidden_layers=4, **size),
                SiglipVisionConfig(image_size=64, patch_size=8, num_hidden_layers=5, **size),
            ),
            preparation="nano",
            initial_bias=-math.log(batch_size - 1),
        ),
        data=DataSpec(train="shards", augment=Augment(crop_area=0.5, flip=0.5, recolour=0.5), positives="equal"),
        optimizer=OptimizerSpec(lr=1e-3, logit_lr_multiplier=10.0, warmup_steps=100),
        steps=17_000,  # 100 passes over 43,565 pairs
        batch_size=batch_size,
        ema=0.999,
    )
