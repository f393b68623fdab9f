"""From scratch: a small model sees the shapes world and writes captions and answers.

    python recipes/shapes.py shapes
    siglip train recipes/shapes_vqa.py --out runs/shapes

The vocabulary is the built-in one, of which it uses some forty words. Nothing is augmented: a flip would make left
right.
"""

from siglip.config import SiglipVisionConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    words = 8000
    vision = SiglipVisionConfig(
        image_size=64,
        patch_size=16,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    decoder = GemmaConfig(
        vocab_size=words + 2,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=64,
    )
    return TrainConfig(
        task="generation",
        model=ModelSpec(
            config=PaliGemmaConfig(vision_config=vision, text_config=decoder, image_token_index=words + 2),
            preparation="nano",
        ),
        data=DataSpec(train="shapes/train/train.jsonl", held_out="shapes/held_out/held_out.jsonl", workers=0),
        optimizer=OptimizerSpec(lr=2e-3, weight_decay=0.05, warmup_steps=100),
        steps=4000,
        batch_size=64,
        ema=0.99,
        evaluate_every=1000,
        log_every=100,
    )
