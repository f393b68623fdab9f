"""Rows of a PaliGemma: equal to the peer's for Gemma's vocabulary, and reversible for any."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from siglip import PaliGemmaProcessor, SiglipImageProcessor, SiglipTokenizer
from siglip.config import ImageSettings, TextSettings
from siglip.errors import PreparationError
from siglip.processing import Box, boxes
from tests.conftest import ROOT


def toy() -> PaliGemmaProcessor:
    tokenizer = SiglipTokenizer(ROOT / "siglip" / "assets" / "nano" / "spiece.model")
    return PaliGemmaProcessor(SiglipImageProcessor(ImageSettings(image_size=48)), tokenizer, 36)


def gemma(folder: Path) -> PaliGemmaProcessor:
    """Gemma's ids for whole words: what stands between them is the peer's business and not ours."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    words = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<unused{i}>" for i in range(104)), "\n", "\u2581", "a", "c", "t"]
    vocabulary = {word: index for index, word in enumerate(words)} | {f"<x{i}>": i for i in range(len(words), 256000)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=False))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Replace("\u2581", " ")
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in words[:4]])
    tokenizer.add_tokens([f"<loc{i:04d}>" for i in range(1024)] + [f"<seg{i:03d}>" for i in range(128)])
    tokenizer.add_special_tokens([AddedToken("<image>", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    made = SiglipTokenizer(folder / "tokenizer.json", TextSettings(clean="none"))
    return PaliGemmaProcessor(SiglipImageProcessor(ImageSettings(image_size=28)), made, 4)


def test_a_row_is_picture_bos_prefix_separator_suffix_eos_with_padding_before_it() -> None:
    processor = toy()
    rows = processor.join(["caption en", "answer en what is it?"], ["a cat", "dog"])
    cat = processor.encode("a cat")
    ids = rows["input_ids"][0][rows["attention_mask"][0] > 0].tolist()
    assert ids == [8002] * 36 + [8000, *processor.encode("caption en"), 8001, *cat, 1]
    assert rows["labels"][0].tolist()[-len(cat) - 1 :] == [*cat, 1]
    assert (rows["labels"] != -100).sum(dim=1).tolist() == [len(cat) + 1, len(processor.encode("dog")) + 1]
    assert torch.equal(rows["token_type_ids"] > 0, rows["labels"] != -100)
    assert not rows["attention_mask"][0, 0] and rows["input_ids"][0, 0] == 0
    assert processor.decode(rows["input_ids"][0, -len(cat) - 1 :]) == "a cat"


def test_gemmas_ids_are_those_of_the_peer(tmp_path: Path) -> None:
    from transformers import PaliGemmaProcessor as Peer
    from transformers import PreTrainedTokenizerFast
    from transformers import SiglipImageProcessor as PeerImages

    ours = gemma(tmp_path)

    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="<pad>", eos_token="<eos>", bos_token="<bos>",
        unk_token="<unk>", padding_side="left",
    )  # fmt: skip
    images = PeerImages(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    peer: Any = Peer(images, fast)
    picture = torch.zeros(3, 28, 28, dtype=torch.uint8).numpy().transpose(1, 2, 0)
    texts, suffixes = ["cat a", "a <loc0003> c"], ["cat", "<loc0001><seg127> t"]
    theirs = peer(images=[picture] * 2, text=texts, suffix=suffixes, return_tensors="pt", padding=True)
    rows = ours.join(texts, suffixes)
    for name in ("input_ids", "attention_mask", "token_type_ids", "labels"):
        assert rows[name].tolist() == theirs[name].tolist(), name
    assert ours.decode(rows["labels"][1][rows["labels"][1] >= 0]) == suffixes[1]
    assert ours.encode("\n") == [108] and rows["input_ids"][0].tolist().count(108) == 1
    assert ours.encode("<eos><loc1024>") != [1] and max(ours.encode("<eos><loc1024>")) < 256000


def test_boxes_come_in_pixels_of_the_picture() -> None:
    text = "<loc0000><loc0341><loc1023><loc0682> cat ; <loc0010><loc0000><loc0020><loc1023><seg001><seg127> a dog"
    first, second = boxes(text, width=300, height=200)
    assert first == Box("cat", 100.0, 0.0, 200.0, 200.0)
    assert second.label == "a dog" and second.segmentation == "<seg001><seg127>" and second.right == 300.0
    assert boxes("no cat here", width=10, height=10) == []


def test_what_does_not_fit_is_told() -> None:
    processor = toy()
    picture = torch.zeros(3, 8, 8)
    with pytest.raises(PreparationError, match="2 texts and 3 pictures"):
        processor([picture] * 3, ["a", "b"])
    with pytest.raises(PreparationError, match="2 texts and 1 suffixes"):
        processor([picture] * 2, ["a", "b"], suffix=["c"])
    with pytest.raises(PreparationError, match="text must be a string or a list of strings"):
        processor([picture], None)


def test_it_is_saved_beside_its_model_and_read_back(tmp_path: Path) -> None:
    from tests.captioners import captioner

    model, processor = captioner()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    read = PaliGemmaProcessor.from_pretrained(tmp_path)
    rows, expected = (each.join(["caption en"], ["a cat"])["input_ids"] for each in (read, processor))
    assert torch.equal(rows, expected)
    assert read.image_processor.settings == processor.image_processor.settings
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["image_seq_length"] == 36
