"""The built-in model, first part: small towers see 32-pixel pictures, with 16 patches each, which is cheap.

    python recipes/nano/build.py DATA
    siglip train recipes/nano/train_32px.py --set data.train=DATA/train --out runs/nano-32px
    siglip train recipes/nano/train_48px.py --set data.train=DATA/train --out runs/nano-48px

train_more.py and README.md beside this file tell how the built-in model went on from there.

Equal captions and concepts are positives, since drawings of one thing come in many styles. Icons are black on white, so
they are recoloured. b starts at the log-odds of a pair in the batch; t and b learn faster than the towers. The learning
rate stays up here and falls in the second part.
"""

import math

from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.data import Augment
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    size = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2}
    batch_size = 256
    return TrainConfig(
        model=ModelSpec(
            config=SiglipConfig.from_text_vision_configs(
                SiglipTextConfig(vocab_size=8000, max_position_embeddings=16, num_hidden_layers=3, **size),
                SiglipVisionConfig(image_size=32, patch_size=8, num_hidden_layers=6, **size),
            ),
            preparation="nano",
            initial_bias=-math.log(batch_size - 1),
        ),
        data=DataSpec(train="DATA/train", augment=Augment(crop_area=0.5, flip=0.5, recolour=0.5), positives="equal"),
        optimizer=OptimizerSpec(lr=2e-3, logit_lr_multiplier=5.0, warmup_steps=200, decay="constant"),
        steps=4500,  # 27 passes over 42,769 pairs
        batch_size=batch_size,
        ema=0.998,
    )
