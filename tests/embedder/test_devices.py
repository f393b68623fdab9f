"""Device, dtype and identity of an embedder, and the model it was given."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from siglip.checkpoints import fingerprint
from siglip.embedder import Embedder
from siglip.embeddings import Embeddings
from siglip.errors import InputError
from siglip.model import SiglipModel
from siglip.processing import SiglipProcessor
from tests.conftest import ROOT
from tests.embedder.conftest import picture


def test_the_given_model_stays_as_it_was(model: SiglipModel, processor: SiglipProcessor) -> None:
    model.train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    embedder = Embedder(model, processor, device="cpu", dtype=torch.bfloat16)
    embedder.embed_texts(["a"])
    assert model.training and all(weight.requires_grad for weight in model.parameters())
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.float32 and torch.equal(weight, before[name])


def test_a_model_left_in_training_mode_is_embedded_without_dropout(
    model: SiglipModel, processor: SiglipProcessor, embedder: Embedder
) -> None:
    noisy = replace(
        model.config,
        text_config=replace(model.config.text_config, attention_dropout=0.9),
        vision_config=replace(model.config.vision_config, attention_dropout=0.9),
    )
    training = SiglipModel(noisy)
    training.load_state_dict(model.state_dict())
    training.train()
    noisy_embedder = Embedder(training, processor, device="cpu", dtype="float32", batch_size=4)
    pictures, texts = [picture(1), picture(2)], ["a cat", "a dog"]
    np.testing.assert_array_equal(
        noisy_embedder.embed_images(pictures).vectors, embedder.embed_images(pictures).vectors
    )
    np.testing.assert_array_equal(noisy_embedder.embed_texts(texts).vectors, embedder.embed_texts(texts).vectors)
    assert training.training


def test_bfloat16_moves_directions_little_and_vectors_stay_float32(
    model: SiglipModel, processor: SiglipProcessor, embedder: Embedder
) -> None:
    half = Embedder(model, processor, device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    images = [picture(index) for index in range(5)]
    found, exact = half.embed_images(images).vectors, embedder.embed_images(images).vectors
    assert found.dtype == np.float32
    assert not np.array_equal(found, exact)
    assert (found * exact).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


def test_the_fingerprint_is_that_of_the_checkpoint_in_every_dtype(
    model: SiglipModel, processor: SiglipProcessor, embedder: Embedder
) -> None:
    assert embedder.fingerprint == fingerprint(model, processor)
    assert Embedder(model, processor, device="cpu", dtype="bfloat16").fingerprint == embedder.fingerprint
    with torch.no_grad():
        model.logit_bias.add_(1.0)
        other = Embedder(model, processor).fingerprint
        model.logit_bias.sub_(1.0)
    assert other != embedder.fingerprint


def test_the_fingerprint_of_large_files_is_remembered_until_they_change(
    model: SiglipModel, processor: SiglipProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys.modules["siglip.checkpoints.fingerprint"], "_REMEMBERED_BYTES", 1)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    expected = fingerprint(model, processor)
    assert Embedder.from_pretrained(folder).fingerprint == expected
    assert not (tmp_path / "cache").exists(), "files just written may change within a tick of the clock"
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))
    assert Embedder.from_pretrained(folder).fingerprint == expected
    (note,) = (tmp_path / "cache" / "fingerprints").iterdir()
    note.write_text("a" * 64)
    assert Embedder.from_pretrained(folder, dtype="bfloat16").fingerprint == "a" * 64, "not computed again"
    os.utime(folder / "model.safetensors", (1e9, 1e9 + 1))
    assert Embedder.from_pretrained(folder).fingerprint == expected


def test_it_loads_a_folder_and_the_built_in_model(
    model: SiglipModel, processor: SiglipProcessor, embedder: Embedder, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = Embedder.from_pretrained(tmp_path, device="cpu", dtype="float32")
    assert loaded.fingerprint == embedder.fingerprint
    np.testing.assert_allclose(loaded.embed_texts(["a"]), embedder.embed_texts(["a"]), atol=1e-6)
    nano = Embedder.from_pretrained("nano", device="cpu", dtype="float32")
    bicycle, strawberry = (ROOT / "samples" / name for name in ("bicycle.png", "strawberry.png"))
    images: Embeddings = nano.embed_images([bicycle, strawberry])
    scores = nano.logits(images.vectors, nano.embed_texts(["a bicycle", "a strawberry"]).vectors)
    assert scores.argmax(axis=0).tolist() == [0, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("device", [0, "cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do(
    model: SiglipModel, processor: SiglipProcessor, device: int | str
) -> None:
    with pytest.raises(InputError, match=r"sees none here; pass .auto. .*or install"):
        Embedder(model, processor, device=device)


def test_auto_takes_what_is_there(model: SiglipModel, processor: SiglipProcessor) -> None:
    embedder = Embedder(model, processor)
    assert embedder.device == SiglipModel.from_pretrained("nano", device_map="auto").logit_scale.device
    assert embedder.dtype in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device 'gpu' does not exist; pass 'auto', 'cpu'"),
        ({"dtype": "int8"}, "dtype 'int8' is not one of 'auto', 'float32'"),
        ({"dtype": torch.float64}, "dtype torch.float64 is not one of"),
        ({"dtype": "nn"}, "dtype 'nn' is not one of"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_options_that_are_none_are_errors(
    model: SiglipModel, processor: SiglipProcessor, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Embedder(model, processor, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_vectors_of_the_cpu(model: SiglipModel, processor: SiglipProcessor, embedder: Embedder) -> None:
    images = [picture(index) for index in range(9)]
    found = Embedder(model, processor, device=0, dtype="float32").embed_images(images)
    np.testing.assert_allclose(found.vectors, embedder.embed_images(images).vectors, atol=1e-4)
