"""Texts and pictures are prepared together, in the ways existing scripts ask for it."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil as PublishedImageProcessor
from transformers import SiglipProcessor as PublishedProcessor
from transformers import SiglipTokenizer as PublishedTokenizer

import siglip
from siglip.config import ImageSettings, TextSettings
from siglip.errors import PreparationError, UnreadableImage
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
from tests.conftest import ROOT

NANO = Path(siglip.__file__).parent / "assets" / "nano"
CAT, DOG = ROOT / "samples" / "cat.jpg", ROOT / "samples" / "beagle.png"
TEXTS = ["A photo of 2 cats.", "a dog", "a very long caption " * 20]


@pytest.fixture(scope="module")
def processor() -> SiglipProcessor:
    return SiglipProcessor(
        SiglipImageProcessor(ImageSettings(image_size=32)),
        SiglipTokenizer(NANO / "spiece.model", TextSettings(context_length=16)),
    )


def test_texts_and_pictures_are_prepared_as_by_the_published_class(processor: SiglipProcessor) -> None:
    published = PublishedProcessor(
        PublishedImageProcessor(size={"height": 32, "width": 32}), PublishedTokenizer.from_pretrained(NANO)
    )
    with Image.open(CAT) as cat, Image.open(DOG).convert("RGB") as dog:
        images = [cat, dog]
        ours = processor(text=TEXTS, images=images, padding="max_length", return_tensors="pt")
        theirs = published(
            text=TEXTS, images=images, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
        )
    assert set(ours) == {"input_ids", "pixel_values"}
    assert torch.equal(ours.input_ids, theirs.input_ids)
    assert torch.equal(ours.pixel_values, theirs.pixel_values)


def test_one_kind_of_input_gives_one_kind_of_tensor(processor: SiglipProcessor) -> None:
    texts, images = processor(TEXTS, return_tensors="pt"), processor(images=[CAT, DOG], return_tensors="pt")
    both = processor(TEXTS, [CAT, DOG], return_tensors="pt")
    assert set(texts) == {"input_ids"} and set(images) == {"pixel_values"}
    assert torch.equal(both.input_ids, texts.input_ids)
    assert torch.equal(both.pixel_values, images.pixel_values)
    assert both.input_ids.shape == (3, 16) and both.pixel_values.shape == (2, 3, 32, 32)


def test_one_text_and_one_picture_make_batches_of_one(processor: SiglipProcessor) -> None:
    inputs = processor("a cat", CAT, return_tensors="pt")
    assert inputs.input_ids.shape == (1, 16) and inputs.pixel_values.shape == (1, 3, 32, 32)


def test_arrays_and_lists_hold_the_same_numbers(processor: SiglipProcessor) -> None:
    tensors = processor(TEXTS, [CAT, DOG], return_tensors="pt")
    arrays = processor(TEXTS, [CAT, DOG], return_tensors="np")
    lists = processor(TEXTS, [CAT, DOG])
    for name in ("input_ids", "pixel_values"):
        assert isinstance(arrays[name], np.ndarray) and isinstance(lists[name], list)
        assert np.array_equal(arrays[name], tensors[name].numpy())
        assert np.array_equal(lists[name], arrays[name])


def test_the_result_moves_and_casts_as_scripts_do(processor: SiglipProcessor) -> None:
    inputs = processor(text=TEXTS, images=CAT, padding="max_length", return_tensors="pt").to("cpu").to(torch.bfloat16)
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert inputs["input_ids"].dtype == torch.int64


def test_neither_text_nor_images_is_an_error(processor: SiglipProcessor) -> None:
    with pytest.raises(PreparationError, match=r"neither text nor images.*text=\.\.\. and images="):
        processor(return_tensors="pt")


def _encoded_picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (4, 4)),
        [Image.new("RGB", (4, 4))],
        np.zeros((4, 4, 3), np.uint8),
        torch.zeros(3, 4, 4),
        _encoded_picture(),
        CAT,
    ],
    ids=["PIL", "list", "array", "tensor", "bytes", "path"],
)
def test_swapped_arguments_are_an_error_that_shows_the_order(processor: SiglipProcessor, picture: Any) -> None:
    with pytest.raises(PreparationError, match=r"text must be strings.*texts come first.*text=\.\.\., images=\.\.\."):
        processor(picture, ["a cat"])


@pytest.mark.parametrize("text", [[], [["a cat"]], ["a cat", None], {"text": "a cat"}])
def test_what_is_no_text_is_an_error(processor: SiglipProcessor, text: Any) -> None:
    with pytest.raises(PreparationError, match="text"):
        processor(text=text, images=CAT)


@pytest.mark.parametrize(
    "options", [{"padding": True}, {"max_length": 64}, {"truncation": False}], ids=["padding", "length", "cutting"]
)
def test_options_reach_the_tokenizer(processor: SiglipProcessor, options: dict[str, Any]) -> None:
    with pytest.raises(PreparationError, match=next(iter(options))):
        processor(text=TEXTS, images=CAT, **options)


def test_a_picture_that_cannot_be_read_is_named(processor: SiglipProcessor, tmp_path: Path) -> None:
    (tmp_path / "fake.jpg").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match=r"fake\.jpg"):
        processor("a cat", tmp_path / "fake.jpg")


def test_decoding_is_the_tokenizers(processor: SiglipProcessor) -> None:
    ids = processor(["a photo of a cat", "a dog"], return_tensors="pt").input_ids
    assert processor.batch_decode(ids, skip_special_tokens=True) == ["a photo of a cat", "a dog"]
    assert processor.decode(ids[1]) == processor.tokenizer.decode(ids[1]) == "a dog" + "</s>" * (ids[1] == 1).sum()


def test_a_pickled_processor_prepares_the_same(processor: SiglipProcessor) -> None:
    copy = pickle.loads(pickle.dumps(processor))
    ours, theirs = processor(TEXTS, CAT, return_tensors="pt"), copy(TEXTS, CAT, return_tensors="pt")
    assert torch.equal(ours.input_ids, theirs.input_ids) and torch.equal(ours.pixel_values, theirs.pixel_values)
