"""Checkpoint folders that several tests load."""

from pathlib import Path

import pytest
import torch

from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.model import SiglipModel
from tests.peers import perturb


@pytest.fixture(params=["tiny", "so400m-like"])
def config(request: pytest.FixtureRequest, tiny_config: SiglipConfig) -> SiglipConfig:
    """`tiny_config`, and one with the odd numbers of so400m: heads of 72, mlp no multiple, patches of 14, 16 tokens."""
    if request.param == "tiny":
        return tiny_config
    shape = {"hidden_size": 144, "intermediate_size": 538, "num_hidden_layers": 2, "num_attention_heads": 2}
    return SiglipConfig(
        text_config=SiglipTextConfig(vocab_size=120, max_position_embeddings=16, **shape),
        vision_config=SiglipVisionConfig(image_size=48, patch_size=14, **shape),
    )


@pytest.fixture
def model(config: SiglipConfig) -> SiglipModel:
    return perturb(SiglipModel(config, generator=torch.Generator().manual_seed(1)), seed=2)


@pytest.fixture
def folder(tiny_model: SiglipModel, tmp_path: Path) -> Path:
    """A tiny model, saved by us."""
    tiny_model.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"
