"""Every recipe of the repository runs: two steps with small towers, data and checkpoints in place of the large ones."""

from pathlib import Path
from typing import Any

import pytest

from siglip import PaliGemmaForConditionalGeneration, SiglipConfig, SiglipForImageClassification, SiglipModel
from siglip.cli.main import main
from siglip.training import load_recipe
from tests.captioners import captioner
from tests.conftest import ROOT
from tests.training.conftest import metrics, write_shard
from tests.training.test_classes import class_folders
from tests.training.test_generation import written

FOLDER = ROOT / "recipes"
# what makes data beside them has no recipe()
RECIPES = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix()
    for path in (*FOLDER.glob("*.py"), *FOLDER.glob("nano/train_*.py"))
    if "def recipe()" in path.read_text()
)
KINDS = {
    "contrastive": (SiglipModel, "text_to_image/recall@1"),
    "classification": (SiglipForImageClassification, "top1"),
    "generation": (PaliGemmaForConditionalGeneration, "exact"),
}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def smaller(recipe: str) -> dict[str, Any]:
    """What makes a recipe small: towers of a fresh model, or the built-in one in place of a large checkpoint."""
    config = load_recipe(FOLDER / f"{recipe}.py")
    common = {"steps": 2, "batch_size": 4, "optimizer.warmup_steps": 1, "log_every": 1, "data.workers": 0}
    common["precision"] = "float32"  # slow where the processor has no bfloat16
    if config.task == "generation":
        return common if config.model.source is None else {**common, "model.source": "toy"}
    if config.model.source is not None:
        size = {} if config.model.image_size is None else {"model.image_size": 32}
        return {**common, "model.source": "nano", **size}
    towers = {
        f"model.config.{tower}_config.{key}": value for tower in ("text", "vision") for key, value in SMALL.items()
    }
    towers |= {"model.config.text_config.projection_size": 32, "model.preparation": "nano"}
    if config.model.image_tower is not None:
        nano = SiglipConfig.from_pretrained("nano").vision_config
        kept = (
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
        )  # fmt: skip
        towers |= {f"model.config.vision_config.{name}": getattr(nano, name) for name in kept}
        towers |= {"model.config.text_config.projection_size": nano.hidden_size, "model.image_tower": "nano"}
    return common | towers


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_two_steps_and_exports(
    recipe: str, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_recipe(FOLDER / f"{recipe}.py").task
    if task == "contrastive":
        data, held_out = shard, write_shard(tmp_path / "held.tar", 8)
    elif task == "classification":
        data = held_out = class_folders(tmp_path / "classes", ["red", "blue", "green"], 4)
    else:
        data, held_out = written(tmp_path / "rows", 8), written(tmp_path / "held", 4)
        monkeypatch.chdir(tmp_path)
        for part in captioner():
            part.save_pretrained(tmp_path / "toy")
    values = {**smaller(recipe), "data.train": data, "data.held_out": held_out}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    assert main(["train", str(FOLDER / f"{recipe}.py"), "--out", str(tmp_path / "run"), *words]) == 0
    rows = metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 1, 2]
    kind, score = KINDS[task]
    assert f"held_out/{score}" in rows[-1]
    kind.from_pretrained(tmp_path / "run" / "export")
