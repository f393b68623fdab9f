"""The example of the model's public documentation runs with one import changed, and gives the peer's numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from siglip import AutoModel, AutoProcessor
from siglip.checkpoints import resolve

TEXTS = ["a photo of 2 cats", "a photo of 2 dogs"]


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, "auto"])
def test_processor_and_model_of_a_folder_give_the_peers_probabilities(image: Image.Image, dtype: Any) -> None:
    folder = resolve("nano")
    model = AutoModel.from_pretrained(folder, dtype=dtype, device_map="auto", attn_implementation="sdpa")
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(text=TEXTS, images=image, padding="max_length", return_tensors="pt").to(model.device)
    with torch.no_grad():
        outputs = model(**inputs)
    probabilities = torch.sigmoid(outputs.logits_per_image)
    assert probabilities.shape == (1, 2)

    peer = transformers.SiglipModel.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = torch.sigmoid(peer(**inputs.to("cpu")).logits_per_image)
    close = 1e-5 if dtype == torch.float32 else 0.01
    torch.testing.assert_close(probabilities.cpu(), expected, rtol=0.0, atol=close)


def test_the_example_runs_after_saving_model_and_processor(image: Image.Image, tmp_path: Path) -> None:
    AutoModel.from_pretrained("nano").save_pretrained(tmp_path)
    AutoProcessor.from_pretrained("nano").save_pretrained(tmp_path)
    outputs = []
    for source in ("nano", tmp_path):
        inputs = AutoProcessor.from_pretrained(source)(text=TEXTS, images=image, return_tensors="pt")
        with torch.no_grad():
            outputs.append(AutoModel.from_pretrained(source)(**inputs).logits_per_image)
    torch.testing.assert_close(*outputs, rtol=0.0, atol=1e-5)
