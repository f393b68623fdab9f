"""The built-in captioner: a small decoder learns to name what the built-in model's locked image tower sees.

    python recipes/nano/build.py DATA
    python recipes/nano/rows.py DATA/train DATA/rows
    siglip train recipes/caption_nano.py --set data.train=DATA/rows/rows.jsonl --out runs/nano-caption

Every picture goes through the tower once, its patch tokens are looked up from then on.
"""

from siglip.config import SiglipConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
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
        data=DataSpec(train="DATA/rows/rows.jsonl"),
        trainable="text",
        optimizer=OptimizerSpec(lr=2e-3, weight_decay=0.05, warmup_steps=200, decay="linear"),
        steps=4700,  # 4 passes over 75,058 rows
        batch_size=64,
        micro_batch_size=16,
        precision="bfloat16",
        ema=0.998,
    )
