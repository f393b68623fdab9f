"""Fixtures every test may use: a tiny configuration and model, the built-in model, and no network."""

import signal
import socket
from pathlib import Path

import pytest
import torch

from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.model import SiglipModel

ROOT = Path(__file__).resolve().parent.parent

# a shell that starts the tests in the background lets them ignore Ctrl-C, which some of them send
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def tiny_config() -> SiglipConfig:
    """Towers of unequal shape, so that a mix-up of sizes shows; 30 px with patches of 8 leaves a border unseen."""
    return SiglipConfig.from_text_vision_configs(
        SiglipTextConfig(
            vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=16, projection_size=48,
        ),
        SiglipVisionConfig(
            hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, image_size=30,
            patch_size=8,
        ),
    )  # fmt: skip


@pytest.fixture
def tiny_model(tiny_config: SiglipConfig) -> SiglipModel:
    return SiglipModel(tiny_config, generator=torch.Generator().manual_seed(0)).eval()


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be reached; a test that needs more says so with the marker `network`."""
    if request.node.get_closest_marker("network"):
        return
    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"tests may not reach {address}")
        real_connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
