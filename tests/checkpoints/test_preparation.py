"""The preparation of pictures and texts is read from every form of the published files, and written for everybody."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers

from siglip import (
    AutoProcessor,
    ImageSettings,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    SiglipTokenizer,
    TextSettings,
)
from siglip.checkpoints import convert, fingerprint, resolve
from siglip.config import SiglipConfig, SiglipTextConfig
from siglip.errors import CheckpointError, NotYetSupported
from tests.checkpoints.test_huggingface import change_json

NANO = resolve("nano")
TEXTS = ["a photo of 2 cats", "A Red, red BALLOON!", ""]
PUBLISHED_V1 = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "SiglipProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The preparation of the built-in model, without the model and without templates of its own."""
    for name in ("preprocessor_config.json", "tokenizer_config.json", "spiece.model"):
        shutil.copy(NANO / name, tmp_path / name)
    values = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del values["templates"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
    return tmp_path


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary with the special tokens of Gemma where Gemma has them."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Replace("\u2581", " ")
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>"])
    file = tmp_path_factory.mktemp("gemma") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


def test_the_published_files_of_version_1_are_read(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(PUBLISHED_V1))
    change_json(folder / "tokenizer_config.json", model_max_length=64)
    processor = SiglipProcessor.from_pretrained(folder)
    assert processor.image_processor.settings == ImageSettings(image_size=224, resample="bicubic")
    assert processor.tokenizer.settings == TextSettings(context_length=64, clean="canonicalize-hf")


def test_fixed_resolution_files_of_version_2_are_lower_cased_because_of_their_vocabulary(
    tmp_path: Path, gemma: Path
) -> None:
    shutil.copy(gemma, tmp_path)
    # the published file says nothing of lower case, and its image processor uses the other filter
    values = {"tokenizer_class": "GemmaTokenizer", "do_lower_case": False, "model_max_length": 10**30}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED_V1 | {"resample": 2}))
    processor = SiglipProcessor.from_pretrained(tmp_path)
    assert processor.image_processor.settings.resample == "bilinear"
    assert processor.tokenizer.settings == TextSettings(context_length=64, clean="lower")
    assert processor(text="A Cat")["input_ids"] == processor(text="a cat")["input_ids"]


def test_the_context_length_is_the_models_whatever_the_tokenizers_file_says(folder: Path) -> None:
    """As for so400m-patch14-224, which reads 16 tokens."""
    config = SiglipConfig(text_config=SiglipTextConfig(max_position_embeddings=16))
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    change_json(folder / "tokenizer_config.json", model_max_length=64)
    tokenizer = SiglipTokenizer.from_pretrained(folder)
    assert tokenizer.settings.context_length == 16
    assert tokenizer("a cat", return_tensors="np").input_ids.shape == (1, 16)


@pytest.mark.parametrize(("length", "expected"), [(32, 32), (10**30, 64), (1, 64), (None, 64)])
def test_without_a_model_the_tokenizers_file_says_the_context_length(
    folder: Path, length: int | None, expected: int
) -> None:
    change_json(folder / "tokenizer_config.json", model_max_length=length)
    assert SiglipTokenizer.from_pretrained(folder).settings.context_length == expected


def test_our_own_key_names_the_cleaning(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", clean="canonicalize-bv")
    assert SiglipTokenizer.from_pretrained(folder).settings.clean == "canonicalize-bv"


def test_templates_are_stored_with_the_preparation_and_do_not_change_the_fingerprint(
    folder: Path, tmp_path: Path, tiny_model: SiglipModel
) -> None:
    change_json(folder / "tokenizer_config.json", templates=["a {}", "{}!"])
    processor = SiglipProcessor.from_pretrained(folder)
    assert processor.templates == ("a {}", "{}!")
    processor.save_pretrained(tmp_path / "saved")
    again = SiglipProcessor.from_pretrained(tmp_path / "saved")
    assert again.templates == ("a {}", "{}!")
    before = fingerprint(tiny_model, again)
    again.tokenizer.settings = replace(again.tokenizer.settings, templates=("{}",))
    assert fingerprint(tiny_model, again) == before


def test_checkpoints_that_name_no_template_get_the_one_of_the_published_examples(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    assert SiglipProcessor.from_pretrained(folder).templates == ("This is a photo of {}.",)


@pytest.mark.parametrize("templates", [[], "a {}", ["a photo"], [3], None])
def test_stored_templates_that_cannot_take_a_label_are_refused(folder: Path, templates: object) -> None:
    change_json(folder / "tokenizer_config.json", templates=templates)
    with pytest.raises(CheckpointError, match=r'"templates" is .*, expected a list of texts'):
        SiglipTokenizer.from_pretrained(folder)


def test_capitals_without_punctuation_are_refused_until_the_cleaning_is_named(folder: Path) -> None:
    published = {"do_lower_case": False, "model_max_length": 16}
    (folder / "tokenizer_config.json").write_text(json.dumps(published))
    with pytest.raises(CheckpointError, match='add "clean": "none"'):
        SiglipTokenizer.from_pretrained(folder)
    change_json(folder / "tokenizer_config.json", clean="none")
    assert SiglipTokenizer.from_pretrained(folder).settings.clean == "none"


def test_a_processor_config_of_transformers_5_goes_before_the_older_file(folder: Path) -> None:
    nested = {"image_processor": PUBLISHED_V1 | {"size": {"height": 96, "width": 96}, "resample": 2}}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    settings = SiglipImageProcessor.from_pretrained(folder).settings
    assert (settings.image_size, settings.resample) == (96, "bilinear")
    (folder / "preprocessor_config.json").unlink()
    assert SiglipImageProcessor.from_pretrained(folder).settings == settings


def test_a_processor_saved_by_transformers_prepares_the_same(folder: Path, tmp_path: Path) -> None:
    peer = transformers.SiglipProcessor(
        image_processor=transformers.SiglipImageProcessorPil.from_pretrained(NANO),
        tokenizer=transformers.SiglipTokenizer.from_pretrained(NANO),
    )
    peer.save_pretrained(tmp_path / "saved")
    ours = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert ours.image_processor.settings == SiglipImageProcessor.from_pretrained(NANO).settings
    # our own keys travel through transformers as well
    assert ours.tokenizer.settings == SiglipTokenizer.from_pretrained(NANO).settings


def test_what_we_save_is_read_by_us_and_by_transformers(tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained("nano")
    settings = ImageSettings(image_size=40, resample="bilinear", image_mean=(0.1, 0.2, 0.3), image_std=(0.4, 0.5, 0.6))
    processor.image_processor.settings = settings
    processor.tokenizer.settings = replace(processor.tokenizer.settings, context_length=12)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.image_processor.settings == settings
    assert again.tokenizer.settings == processor.tokenizer.settings

    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    expected = processor(text=TEXTS, images=pixels, return_tensors="pt")
    images = transformers.SiglipImageProcessorPil.from_pretrained(tmp_path)
    torch.testing.assert_close(images(pixels, return_tensors="pt")["pixel_values"], expected.pixel_values)
    texts = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = texts(TEXTS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    assert torch.equal(ids, expected.input_ids)


def test_parts_are_saved_and_loaded_alone(folder: Path, tmp_path: Path) -> None:
    processor = SiglipProcessor.from_pretrained(folder)
    processor.tokenizer.save_pretrained(tmp_path / "texts")
    processor.image_processor.save_pretrained(tmp_path / "pictures")
    assert SiglipTokenizer.from_pretrained(tmp_path / "texts").settings == processor.tokenizer.settings
    assert SiglipImageProcessor.from_pretrained(tmp_path / "pictures").settings == processor.image_processor.settings
    with pytest.raises(CheckpointError, match=r"no preprocessor_config\.json"):
        SiglipProcessor.from_pretrained(tmp_path / "texts")
    with pytest.raises(CheckpointError, match=r"no spiece\.model or tokenizer\.json"):
        SiglipProcessor.from_pretrained(tmp_path / "pictures")


def test_saving_a_processor_over_one_of_transformers_5_replaces_it(folder: Path) -> None:
    processor = SiglipProcessor.from_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": PUBLISHED_V1}))
    processor.save_pretrained(folder)
    assert SiglipProcessor.from_pretrained(folder).image_processor.settings == processor.image_processor.settings


def test_saving_keeps_what_else_the_published_tokenizer_file_says(folder: Path, tmp_path: Path) -> None:
    change_json(folder / "tokenizer_config.json", added_by="somebody")
    SiglipTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())["added_by"] == "somebody"


def test_the_gemma_vocabulary_is_saved_under_its_name(tmp_path: Path, gemma: Path) -> None:
    SiglipTokenizer(gemma, TextSettings(context_length=9, clean="lower")).save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert SiglipTokenizer.from_pretrained(tmp_path).settings == TextSettings(context_length=9, clean="lower")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "do_resize False"),
        ({"do_rescale": False}, "do_rescale False"),
        ({"do_center_crop": True}, "do_center_crop True"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"resample": 1}, "resample 1"),
        ({"size": {"shortest_edge": 224}}, "size .*shortest_edge"),
        ({"size": {"height": 224, "width": 256}}, "size .*256"),
    ],
)
def test_a_preparation_that_is_not_siglips_is_an_error(folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(PUBLISHED_V1 | change))
    with pytest.raises(CheckpointError, match=message):
        SiglipImageProcessor.from_pretrained(folder)


def test_defaults_left_out_of_the_file_are_the_published_ones(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"size": 32, "do_center_crop": null}')
    assert SiglipImageProcessor.from_pretrained(folder).settings == ImageSettings(image_size=32)


def test_pictures_left_between_0_and_1_are_prepared_so(folder: Path) -> None:
    change_json(folder / "preprocessor_config.json", do_normalize=False)
    white = np.full((64, 64, 3), 255, np.uint8)
    values = SiglipImageProcessor.from_pretrained(folder)(white, return_tensors="pt").pixel_values
    assert values.unique().tolist() == [1.0]


def test_naflex_preparation_is_not_yet_supported(folder: Path) -> None:
    change_json(folder / "preprocessor_config.json", image_processor_type="Siglip2ImageProcessorFast")
    with pytest.raises(NotYetSupported, match="NaFlex"):
        SiglipImageProcessor.from_pretrained(folder)


def test_a_bare_npz_prepares_pictures_as_published_and_says_what_its_texts_need(
    tiny_model: SiglipModel, tmp_path: Path
) -> None:
    tiny_model.save_pretrained(tmp_path / "model")
    file = convert(tmp_path / "model", tmp_path / "npz", "big_vision") / "model.npz"
    (tmp_path / "npz" / "preprocessor_config.json").unlink()
    assert SiglipImageProcessor.from_pretrained(file).settings == ImageSettings(image_size=24, resample="bicubic")
    with pytest.raises(CheckpointError, match="copy it there from the Hugging Face checkpoint"):
        SiglipProcessor.from_pretrained(file)
