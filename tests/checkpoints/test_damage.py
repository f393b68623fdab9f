"""Damaged files and files with the wrong things in them end in an error of ours, never in another one."""

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from siglip import AutoProcessor, SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor
from siglip.checkpoints import convert
from siglip.config import SiglipTextConfig, SiglipVisionConfig
from siglip.errors import SiglipError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A very small model in every form, with its preparation."""
    root = tmp_path_factory.mktemp("forms")
    shape = {"hidden_size": 8, "intermediate_size": 5, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = SiglipModel(
        SiglipConfig(
            text_config=SiglipTextConfig(vocab_size=7, max_position_embeddings=4, **shape),
            vision_config=SiglipVisionConfig(image_size=8, patch_size=4, **shape),
        )
    )
    model.save_pretrained(root / "single")
    AutoProcessor.from_pretrained("nano").save_pretrained(root / "single")
    model.save_pretrained(root / "sharded", max_shard_bytes=2000)
    convert(root / "single", root / "npz", "big_vision")
    convert(root / "single", root / "open_clip", "open_clip")
    (root / "state_dict").mkdir()
    shutil.copy(root / "open_clip" / "open_clip_config.json", root / "state_dict")
    weights = load_file(root / "open_clip" / "open_clip_model.safetensors")
    torch.save(weights, root / "state_dict" / "open_clip_pytorch_model.bin")
    (root / "compressed").mkdir()
    np.savez_compressed(root / "compressed" / "model.npz", **dict(np.load(root / "npz" / "model.npz")))
    return {folder.name: folder for folder in root.iterdir()}


def load(folder: Path, kind: Any = SiglipModel) -> None:
    try:
        kind.from_pretrained(folder)
    except SiglipError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("single", "model.safetensors"),
        ("npz", "model.npz"),
        ("compressed", "model.npz"),
        ("open_clip", "open_clip_model.safetensors"),
        ("state_dict", "open_clip_pytorch_model.bin"),
    ],
)
def test_weights_with_flipped_or_missing_bytes(folders: dict[str, Path], tmp_path: Path, form: str, name: str) -> None:
    shutil.copytree(folders[form], tmp_path / "damaged")
    data = (tmp_path / "damaged" / name).read_bytes()
    chance = random.Random(form)
    for _ in range(12):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            # the structure of these files is at both ends
            position = chance.choice([chance.randrange(3000), -1 - chance.randrange(3000)])
            damaged[position] = chance.randrange(256)
        if chance.random() < 0.3:
            del damaged[chance.randrange(len(damaged)) :]
        (tmp_path / "damaged" / name).write_bytes(damaged)
        load(tmp_path / "damaged")


def places(values: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON file."""
    yield above
    for key in values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ():
        yield from places(values[key], (*above, key))


@pytest.mark.parametrize(
    ("form", "name", "kind"),
    [
        ("single", "config.json", SiglipModel),
        ("single", "preprocessor_config.json", SiglipProcessor),
        ("single", "tokenizer_config.json", SiglipProcessor),
        ("sharded", "model.safetensors.index.json", SiglipModel),
        ("open_clip", "open_clip_config.json", SiglipModel),
        ("state_dict", "open_clip_config.json", SiglipImageProcessor),
    ],
)
@pytest.mark.parametrize("wrong", [None, "x", [], {"a": 1}, -1, 1.5, True])
def test_configurations_with_something_else_in_one_place(
    folders: dict[str, Path], tmp_path: Path, form: str, name: str, kind: Any, wrong: Any
) -> None:
    shutil.copytree(folders[form], tmp_path / "damaged")
    values = json.loads((tmp_path / "damaged" / name).read_text())
    everywhere = list(places(values))
    for place in random.Random(f"{form} {wrong}").sample(everywhere, min(10, len(everywhere))):
        changed = copy.deepcopy(values) if place else wrong
        if place:
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = wrong
        (tmp_path / "damaged" / name).write_text(json.dumps(changed))
        load(tmp_path / "damaged", kind)
