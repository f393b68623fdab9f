"""Loading: its options, and what it costs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from siglip import (
    AutoModel,
    AutoProcessor,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipModel,
    SiglipTextModel,
    SiglipVisionModel,
)
from siglip.checkpoints import convert
from siglip.config import SiglipTextConfig, SiglipVisionConfig
from siglip.errors import CheckpointError, ConfigError, InputError
from siglip.model import resize_position_embedding


def test_auto_classes_give_the_model_and_the_processor() -> None:
    assert type(AutoModel.from_pretrained("nano")) is SiglipModel
    assert AutoProcessor.from_pretrained("nano").tokenizer.settings.context_length == 16


def test_a_loaded_model_evaluates_and_can_be_trained_without_touching_its_file(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    model = SiglipModel.from_pretrained(folder)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", torch.float32), (torch.float16, torch.float16), ("torch.bfloat16", torch.bfloat16)],
)
def test_towers_take_the_dtype_asked_for_while_temperature_and_bias_stay_float32(
    folder: Path, tiny_model: SiglipModel, dtype: Any, expected: torch.dtype
) -> None:
    model = SiglipModel.from_pretrained(folder, dtype=dtype)
    for name, tensor in model.state_dict().items():
        exact = tiny_model.state_dict()[name]
        assert torch.equal(tensor, exact if name.startswith("logit_") else exact.to(expected)), name


def test_dtype_auto_is_what_is_stored() -> None:
    assert AutoModel.from_pretrained("nano", dtype="auto").vision_model.head.probe.dtype == torch.float16
    assert AutoModel.from_pretrained("nano").vision_model.head.probe.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["int8", "half-ish", torch.int64])
def test_an_unknown_dtype_is_an_error_that_lists_the_known(folder: Path, dtype: Any) -> None:
    with pytest.raises(ConfigError, match="float64, float32, float16, bfloat16 or 'auto'"):
        SiglipModel.from_pretrained(folder, dtype=dtype)


@pytest.mark.parametrize("device", [None, "cpu", "auto", torch.device("cpu"), "meta"])
def test_a_device_is_named_in_every_usual_way(folder: Path, device: Any) -> None:
    model = SiglipModel.from_pretrained(folder, device_map=device)
    if device == "auto":
        expected = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    else:
        expected = torch.device(device or "cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {expected.type}


@pytest.mark.parametrize("device", ["quantum", "cuda:99", -3])
def test_a_device_that_is_not_there_is_an_error(folder: Path, device: Any) -> None:
    with pytest.raises(InputError, match=f"^device {device!r} .*pass 'auto'"):
        SiglipModel.from_pretrained(folder, device_map=device)


def test_another_attention_implementation_is_an_error_that_says_what_runs(folder: Path) -> None:
    with pytest.raises(ConfigError, match="always PyTorch's scaled dot product"):
        SiglipModel.from_pretrained(folder, attn_implementation="flash_attention_2")


@pytest.mark.parametrize("kind", [SiglipModel, SiglipVisionModel, SiglipForImageClassification])
@pytest.mark.parametrize("image_size", [16, 30, 47])
def test_position_embeddings_are_resized_while_loading(
    folder: Path, tiny_model: SiglipModel, kind: Any, image_size: int
) -> None:
    model = kind.from_pretrained(folder, image_size=image_size)
    tower = getattr(model, "vision_model", model)
    grid = image_size // 8
    stored = tiny_model.vision_model.embeddings.position_embedding.weight.detach()
    expected = resize_position_embedding(stored, (grid, grid), method="corner-bilinear")
    torch.testing.assert_close(tower.embeddings.position_embedding.weight, expected)
    assert tower.config.image_size == image_size
    if kind is SiglipModel:
        assert model.config.vision_config.image_size == image_size
    tower(torch.zeros(1, 3, image_size, image_size))


def test_positions_in_half_precision_are_resized_in_float32(folder: Path, tmp_path: Path) -> None:
    SiglipModel.from_pretrained(folder, dtype="float16").save_pretrained(tmp_path / "half")
    stored = SiglipModel.from_pretrained(tmp_path / "half")
    expected = resize_position_embedding(
        stored.vision_model.embeddings.position_embedding.weight.detach(), (5, 5), method="corner-bilinear"
    )
    resized = SiglipModel.from_pretrained(tmp_path / "half", image_size=40)
    torch.testing.assert_close(resized.vision_model.embeddings.position_embedding.weight, expected, rtol=0.0, atol=1e-7)


def test_pictures_for_a_resized_model_are_prepared_at_its_size(tmp_path: Path) -> None:
    model = SiglipModel.from_pretrained("nano", image_size=96)
    processor = AutoProcessor.from_pretrained("nano")
    processor.image_processor.settings = replace(processor.image_processor.settings, image_size=96)
    picture = torch.zeros(3, 20, 30, dtype=torch.uint8)
    model(**processor(text="black", images=picture, return_tensors="pt"))
    # saved together in any order, the model's size is what counts
    AutoProcessor.from_pretrained("nano").save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.image_processor.settings.image_size == 96
    AutoModel.from_pretrained(tmp_path)(**again(text="black", images=picture, return_tensors="pt"))


def test_options_that_a_class_cannot_use_are_errors(folder: Path) -> None:
    with pytest.raises(ConfigError, match="SiglipModel has no classes"):
        SiglipModel.from_pretrained(folder, labels=["cat"])
    with pytest.raises(ConfigError, match="does not apply to SiglipTextModel"):
        SiglipTextModel.from_pretrained(folder, image_size=64)


def test_a_folder_without_a_checkpoint_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json and model\.safetensors.*or an \.npz file"):
        SiglipModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", "{not json", "\x00\xff"])
def test_a_broken_config_is_an_error_that_names_it(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        SiglipModel.from_pretrained(folder)


def test_the_configuration_loads_from_every_layout(folder: Path, tmp_path: Path, tiny_config: SiglipConfig) -> None:
    assert SiglipConfig.from_pretrained(folder) == tiny_config
    convert(folder, tmp_path / "big_vision", "big_vision")
    convert(folder, tmp_path / "open_clip", "open_clip")
    assert SiglipConfig.from_pretrained(tmp_path / "big_vision") == tiny_config
    assert SiglipConfig.from_pretrained(tmp_path / "open_clip") == tiny_config


@pytest.mark.parametrize("second", ["open_clip", "big_vision"])
def test_hugging_face_weights_go_before_those_of_another_layout_beside_them(
    folder: Path, tmp_path: Path, tiny_model: SiglipModel, second: str
) -> None:
    """Repositories carry several; a config.json alone does not hide the weights there are."""
    both = tmp_path / "both"
    convert(folder, both, second)
    other = SiglipModel(tiny_model.config, generator=torch.Generator().manual_seed(99))
    other.save_pretrained(both)
    assert torch.equal(SiglipModel.from_pretrained(both).text_model.head.weight, other.text_model.head.weight)
    if second == "open_clip":
        (both / "model.safetensors").unlink()
        first = SiglipModel.from_pretrained(folder)
        assert torch.equal(SiglipModel.from_pretrained(both).text_model.head.weight, first.text_model.head.weight)


def test_a_folder_of_one_tower_says_what_a_whole_model_misses(tiny_model: SiglipModel, tmp_path: Path) -> None:
    tiny_model.text_model.save_pretrained(tmp_path)
    assert SiglipTextModel.from_pretrained(tmp_path).config == tiny_model.config.text_config
    with pytest.raises(CheckpointError, match=r"missing: .*vision_model\."):
        SiglipVisionModel.from_pretrained(tmp_path)


def test_loading_imports_no_algebra_library(folder: Path, tmp_path: Path) -> None:
    """torch loads one, for seconds and 90 MB, at the first work on tensors without memory."""
    folders = [folder, *(convert(folder, tmp_path / to, to) for to in ("big_vision", "open_clip"))]
    program = (
        "import sys; from siglip import AutoModel; [AutoModel.from_pretrained(path) for path in sys.argv[1:]]; "
        "print([name for name in ('sympy', 'torch._dynamo', 'transformers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program, *folders], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


# one child a folder, so that each starts from the same memory: it loads, touches every number, and prints the size of
# the weights and the peak of what was added
MEASURE = """
import os, sys
import siglip

kind, dtype, small, *folders = sys.argv[1:]
kind = getattr(siglip, kind)

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

for folder in folders:
    if os.fork() == 0:
        # brings in the code that loading runs
        sum(tensor.sum() for tensor in kind.from_pretrained(small, dtype=dtype).state_dict().values())
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")
        before = status("VmRSS")
        state = kind.from_pretrained(folder, dtype=dtype).state_dict()
        weights = sum(tensor.nbytes for tensor in state.values())
        total = sum(tensor.sum().item() for tensor in state.values())
        print(os.path.basename(folder), weights, status("VmHWM") - before, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_takes_at_most_1_15_times_the_memory_of_the_weights(tmp_path: Path) -> None:
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 3}
    config = SiglipConfig(
        text_config=SiglipTextConfig(vocab_size=10000, **shape), vision_config=SiglipVisionConfig(**shape)
    )
    model = SiglipModel(config)
    model.save_pretrained(tmp_path / "single")
    model.save_pretrained(tmp_path / "sharded", max_shard_bytes=50_000_000)
    convert(tmp_path / "single", tmp_path / "big_vision", "big_vision")
    convert(tmp_path / "single", tmp_path / "open_clip", "open_clip")
    model.half().save_pretrained(tmp_path / "float16")
    check_peaks("SiglipModel", "nano", list(tmp_path.iterdir()))


def peaks(kind: str, dtype: str, small: str | Path, sources: list[Path]) -> list[tuple[str, int, int]]:
    """Name of each source, bytes of its weights, and the peak of loading it in a process of its own.

    A small one is loaded before, which brings in the code.
    """
    program = [sys.executable, "-c", MEASURE, kind, dtype, small, *sources]
    # memory that is freed goes back at once, as it does for the tensors of published sizes
    settings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    lines = subprocess.run(program, capture_output=True, text=True, check=True, env=settings).stdout.splitlines()
    assert len(lines) == len(sources)
    return [(name, int(weights), int(peak)) for name, weights, peak in (line.rsplit(" ", 2) for line in lines)]


def check_peaks(kind: str, small: str | Path, sources: list[Path]) -> None:
    """Hold the peak of each against its weights."""
    for layout, weights, peak in peaks(kind, "float32", small, sources):
        assert weights > 100_000_000
        ratio = peak / weights
        # the numbers were touched, so most of them are there; the system may take back pages of a file at any time
        assert 0.5 < ratio <= 1.15, f"{layout}: {ratio:.3f} times the weights"
