"""Scripts as people write them for transformers run here with the import changed, and find the same numbers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import siglip
from siglip import (
    ImageSettings,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    SiglipTextConfig,
    SiglipTokenizer,
    SiglipVisionConfig,
)
from siglip.checkpoints import resolve
from tests.peers import perturb

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))
IMPORT = re.compile(r"^from transformers import (?!Trainer)(.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A pair of towers and a classifier as transformers reads them, in float32, and twelve pictures."""
    folder = tmp_path_factory.mktemp("given")
    size = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = SiglipConfig(
        text_config=SiglipTextConfig(vocab_size=8000, **size),
        vision_config=SiglipVisionConfig(image_size=48, patch_size=8, **size),
        id2label=dict(enumerate(["bird", "fish", "plant"])),
    )
    model = perturb(SiglipModel(config, generator=torch.Generator().manual_seed(0)))
    model.logit_bias.data.fill_(-2.0)  # so that probabilities are far from 0
    processor = SiglipProcessor(
        SiglipImageProcessor(ImageSettings(image_size=48)), SiglipTokenizer(resolve("nano") / "spiece.model")
    )
    classifier = perturb(SiglipForImageClassification(config, generator=torch.Generator().manual_seed(1)))
    for made, place in ((model, "pair"), (classifier, "classifier")):
        made.save_pretrained(folder / place)
        processor.save_pretrained(folder / place)
    paths: list[str] = []
    for number in range(12):
        random = np.random.default_rng(number)
        pixels = random.integers(0, 256, (6, 8, 3), np.uint8).repeat(12, axis=0).repeat(10, axis=1)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return {"MODEL": str(folder / "pair"), "CLASSIFIER": str(folder / "classifier"), "PICTURES": paths}


def run(script: Path, source: str, given: dict[str, Any], out: Path) -> dict[str, Any]:
    """What the variables of a script hold when it has run."""
    names = {**given, "OUT": str(out), "__name__": "__main__"}
    torch.manual_seed(0)
    exec(compile(source, str(script), "exec"), names)
    return names


def leaves(value: Any) -> list[Any]:
    """Numbers, texts and arrays out of nested lists and tuples."""
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list | tuple) else [value]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs_with_its_import_changed(script: Path, given: dict[str, Any], tmp_path: Path) -> None:
    source = script.read_text(encoding="utf-8")
    (names,) = IMPORT.findall(source)
    assert set(names.split(", ")) <= set(siglip.__all__)
    ours = run(script, IMPORT.sub(r"from siglip import \1", source), given, tmp_path / "ours")
    theirs = run(script, source, given, tmp_path / "theirs")
    found, expected = leaves(ours["result"]), leaves(theirs["result"])
    assert len(found) == len(expected)
    close = ours.get("tolerance", 2e-4)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, torch.Tensor | np.ndarray | float):
            torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=close, atol=close)
        else:
            assert one == other
