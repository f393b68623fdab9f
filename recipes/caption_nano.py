"""The built-in captioner: a small decoder learns to name what the built-in model's image tower sees.

    python recipes/nano/build.py DATA
    python recipes/nano/rows.py DATA DATA/rows
    siglip train recipes/caption_nano.py --set data.train=DATA/rows/rows.jsonl --out runs/nano-caption

The tower learns on, slowly, and pictures are cropped and mirrored, so that the decoder does not only meet features of
pictures that the tower knows by heart.
"""

from siglip.config import SiglipConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.data import Augment
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    words = 8000
    decoder = GemmaConfig(
        vocab_size=words + 2,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=128,
    )
    tower = SiglipConfig.from_pretrained("nano").vision_config
    return TrainConfig(
        task="generation",
        model=ModelSpec(
            config=PaliGemmaConfig(vision_config=tower, text_config=decoder, image_token_index=words + 2),
            preparation="nano",
            image_tower="nano",
        ),
        data=DataSpec(train="DATA/rows/rows.jsonl", augment=Augment(crop_area=0.6, flip=0.5)),
        optimizer=OptimizerSpec(lr=2e-3, image_lr_multiplier=0.15, weight_decay=0.05, warmup_steps=200, decay="linear"),
        steps=5000,  # 2.8 passes over 114,234 rows
        batch_size=64,
        precision="bfloat16",
        ema=0.998,
    )
