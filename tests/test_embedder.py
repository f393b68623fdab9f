"""Embedding many inputs equals embedding each alone, whatever the batches, threads and broken ones among them."""

import io
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from siglip.checkpoints import fingerprint
from siglip.config import ImageSettings, SiglipConfig, SiglipTextConfig, SiglipVisionConfig, TextSettings
from siglip.embedder import Embedder
from siglip.embeddings import Embeddings
from siglip.errors import Failure, InputError, PreparationError, ShapeError, SiglipWarning, UnreadableImage
from siglip.model import SiglipModel
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer, decode_picture
from tests.conftest import ROOT

WIDTH = 48


@pytest.fixture(scope="module")
def processor() -> SiglipProcessor:
    vocabulary = ROOT / "siglip" / "assets" / "nano" / "spiece.model"
    return SiglipProcessor(
        SiglipImageProcessor(ImageSettings(image_size=24)), SiglipTokenizer(vocabulary, TextSettings(context_length=16))
    )


@pytest.fixture(scope="module")
def model(processor: SiglipProcessor) -> SiglipModel:
    text = SiglipTextConfig(
        vocab_size=processor.tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=16, projection_size=WIDTH,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, image_size=24, patch_size=8
    )
    config = SiglipConfig.from_text_vision_configs(text, vision)
    return SiglipModel(config, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def embedder(model: SiglipModel, processor: SiglipProcessor) -> Embedder:
    return Embedder(model, processor, device="cpu", dtype="float32", batch_size=4)


def picture(seed: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def alone(embedder: Embedder, image: object) -> np.ndarray:
    """The slow way: one picture through the public processor and the given model."""
    pixel_values = embedder.processor(images=image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return F.normalize(embedder.model.get_image_features(pixel_values), dim=-1)[0].numpy()


def decoding_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("siglip-decode")}


class Counted(Iterator[np.ndarray]):
    """Pictures without end that know how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __next__(self) -> np.ndarray:
        self.taken += 1
        return picture(self.taken % 5)


# ---- pictures


def test_each_row_is_the_unit_vector_of_its_picture_alone(embedder: Embedder) -> None:
    # a large picture first: it is decoded last, and must stay first
    images = [picture(0, (1500, 2000)), *map(picture, range(1, 11))]
    found = embedder.embed_images(images)
    assert found.vectors.dtype == np.float32 and found.indices.tolist() == list(range(11)) and not found.failures
    np.testing.assert_allclose(found.vectors, [alone(embedder, image) for image in images], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    good=st.lists(st.booleans(), max_size=12),
    batch_size=st.integers(1, 5),
)
def test_broken_pictures_are_reported_in_place_and_the_others_keep_their_vectors(
    model: SiglipModel, processor: SiglipProcessor, embedder: Embedder, good: list[bool], batch_size: int
) -> None:
    images = [picture(index) if fine else f"/no/such/{index}.png" for index, fine in enumerate(good)]
    found = Embedder(model, processor, device="cpu", dtype="float32", batch_size=batch_size).embed_images(images)
    assert found.indices.tolist() == [index for index, fine in enumerate(good) if fine]
    assert [(failure.index, failure.name) for failure in found.failures] == [
        (index, f"/no/such/{index}.png") for index, fine in enumerate(good) if not fine
    ]
    for index, vector in zip(found.indices, found.vectors, strict=True):
        np.testing.assert_allclose(vector, alone(embedder, images[index]), atol=1e-5)


def test_a_failure_says_which_input_it_was_and_why(embedder: Embedder) -> None:
    found = embedder.embed_images([picture(0), b"not a picture"])
    (failure,) = found.failures
    assert (failure.index, failure.name) == (1, "image 1")
    assert "no picture" in failure.reason
    assert repr(found) == f"Embeddings(1 vectors of width {WIDTH}, 1 failures)"


def test_nothing_gives_no_rows_of_full_width(embedder: Embedder) -> None:
    assert embedder.embed_images([]).vectors.shape == (0, WIDTH)
    assert embedder.embed_images(["/no/such.png"]).vectors.shape == (0, WIDTH)
    assert embedder.embed_texts([]).vectors.shape == (0, WIDTH)


def test_the_same_lazy_picture_many_times_gives_the_same_row(embedder: Embedder, tmp_path: Path) -> None:
    Image.fromarray(picture(3, (300, 300))).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as lazy:
        found = embedder.embed_images([lazy] * 9)
    np.testing.assert_allclose(found.vectors, [alone(embedder, tmp_path / "a.png")] * 9, atol=1e-5)


def test_a_four_dimensional_array_is_a_batch_of_pictures(embedder: Embedder) -> None:
    batch = np.stack([picture(0), picture(1)])
    np.testing.assert_allclose(embedder.embed_images(batch), embedder.embed_images(list(batch)), atol=1e-6)


@pytest.mark.parametrize("single", ["a.png", picture(0), torch.zeros(3, 4, 4)])
def test_a_single_picture_where_many_are_expected_is_an_error(embedder: Embedder, single: object) -> None:
    with pytest.raises(InputError, match=r"got a single .*; pass \[picture\]"):
        embedder.stream_images(single)  # pyright: ignore[reportArgumentType]


def test_progress_counts_every_input_once(embedder: Embedder) -> None:
    steps: list[int] = []
    embedder.embed_images([picture(0), "/no/such.png", picture(1)], progress=steps.append)
    assert sum(steps) == 3
    embedder.embed_texts(["a", "b", "a"], progress=steps.append)
    assert sum(steps) == 6


def test_a_bar_is_shown_when_asked_for(embedder: Embedder, capsys: pytest.CaptureFixture[str]) -> None:
    embedder.embed_images([picture(0), picture(1)])
    assert capsys.readouterr().err == ""
    embedder.embed_images([picture(0), picture(1)], progress=True)
    embedder.embed_texts(iter("abc"), progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown and "picture" in shown and "3/3" in shown


# ---- streams


def test_an_endless_stream_is_read_two_batches_ahead_at_most(embedder: Embedder) -> None:
    source = Counted()
    with_positions = embedder.stream_images(source)
    for yielded, result in enumerate(itertools.islice(with_positions, 50), start=1):
        assert not isinstance(result, Failure) and result[0] == yielded - 1
        assert source.taken <= yielded + 2 * embedder.batch_size
    with_positions.close()


def test_nothing_is_taken_before_the_first_result_is_asked_for(embedder: Embedder) -> None:
    source = Counted()
    embedder.stream_images(source)
    assert source.taken == 0


class Counting(io.BytesIO):
    """A picture file that counts how often it was read."""

    read_count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        Counting.read_count += 1
        return super().read(size)


def test_closing_a_stream_leaves_no_work_behind_and_takes_no_more(embedder: Embedder) -> None:
    file = io.BytesIO()
    Image.fromarray(picture(0)).save(file, "PNG")
    source = Counted()
    stream = embedder.stream_images(Counting(file.getvalue()) for _ in source)
    next(stream)
    taken = source.taken
    stream.close()
    read = Counting.read_count
    assert 4 <= read <= taken == source.taken
    embedder.embed_images([picture(0)] * 20)  # would find work left in the queue, and wait for it
    assert Counting.read_count == read


def test_all_calls_decode_in_the_same_threads(model: SiglipModel, processor: SiglipProcessor) -> None:
    before = decoding_threads()
    embedder = Embedder(model, processor, device="cpu", dtype="float32")
    embedder.embed_images([picture(0)] * 9)
    made = decoding_threads() - before
    embedder.embed_images([picture(0)] * 9)
    assert made and len(made) <= (os.cpu_count() or 1) and decoding_threads() - before == made


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_embedder_works_on_in_a_forked_process(embedder: Embedder) -> None:
    expected = embedder.embed_images([picture(0)]).vectors
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        os.write(write, embedder.embed_images([picture(0)]).vectors.tobytes())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        found = np.frombuffer(stream.read(), np.float32)
    os.waitpid(child, 0)
    np.testing.assert_allclose(found, expected[0], atol=1e-6)


def test_an_error_of_the_source_reaches_the_caller_and_the_next_call_works(embedder: Embedder) -> None:
    def source() -> Iterator[np.ndarray]:
        yield picture(0)
        raise LookupError("the database is gone")

    with pytest.raises(LookupError, match="the database is gone"):
        embedder.embed_images(source())
    assert len(embedder.embed_images([picture(0)])) == 1


def test_control_c_reaches_the_caller_and_the_next_call_works(embedder: Embedder) -> None:
    def source() -> Iterator[np.ndarray]:
        for index in itertools.count():
            if index == 30:
                signal.raise_signal(signal.SIGINT)
            yield picture(index)

    with pytest.raises(KeyboardInterrupt):
        embedder.embed_images(source())
    assert len(embedder.embed_images([picture(0)])) == 1


# ---- texts


@pytest.mark.filterwarnings("ignore:1 of 4 texts")
def test_each_row_is_the_unit_vector_of_its_text_alone(embedder: Embedder) -> None:
    texts = ["a cat", "two dogs on a very long lead that goes round and round the garden twice", "", "a cat", "tea"]
    found = embedder.embed_texts(iter(texts))
    input_ids = [embedder.processor(text=text, return_tensors="pt")["input_ids"] for text in texts]
    with torch.no_grad():
        expected = [F.normalize(embedder.model.get_text_features(ids), dim=-1)[0].numpy() for ids in input_ids]
    np.testing.assert_allclose(found.vectors, expected, atol=1e-5)
    assert found.indices.tolist() == [0, 1, 2, 3, 4]


def test_equal_texts_are_encoded_once(model: SiglipModel, processor: SiglipProcessor) -> None:
    rows: list[int] = []
    hook = model.text_model.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    embedder = Embedder(model, processor, device="cpu", dtype="float32", batch_size=4)
    hook.remove()
    found = embedder.embed_texts([f"text {index % 6}" for index in range(30)])
    assert rows == [4, 2]
    np.testing.assert_array_equal(found.vectors[:6], found.vectors[24:])


def test_what_is_no_text_is_reported_and_the_others_go_on(embedder: Embedder) -> None:
    found = embedder.embed_texts(text for text in ("a", None, "b", "\ud800", "a"))  # pyright: ignore[reportArgumentType]
    assert found.indices.tolist() == [0, 2, 4]
    assert [failure.index for failure in found.failures] == [1, 3]
    assert found.failures[0].reason == "must be a string, got NoneType: None"
    assert "lone surrogate" in found.failures[1].reason and found.failures[1].name == r"'\ud800'"
    np.testing.assert_allclose(found.vectors, embedder.embed_texts(["a", "b", "a"]).vectors, atol=1e-6)


def test_a_single_text_where_many_are_expected_is_an_error(embedder: Embedder) -> None:
    with pytest.raises(InputError, match=r"got the single text 'a cat'; pass \[text\]"):
        embedder.embed_texts("a cat")


# ---- labels


def test_labels_are_averaged_over_templates_and_normalised_again(embedder: Embedder) -> None:
    first = embedder.embed_texts(["a cat.", "a {braced} pig."]).vectors
    second = embedder.embed_texts(["drawing of cat", "drawing of {braced} pig"]).vectors
    expected = (first + second) / 2
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = embedder.embed_labels(["cat", "{braced} pig"], ["a {}.", "drawing of {}"])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(embedder.embed_labels(["cat"], "a {}."), first[:1], atol=1e-6)


def test_labels_without_templates_go_into_those_of_the_checkpoint(embedder: Embedder) -> None:
    own = embedder.embed_labels(["cat", "pig"])
    prompts = embedder.embed_texts(["This is a photo of cat.", "This is a photo of pig."]).vectors
    np.testing.assert_allclose(own, prompts, atol=1e-6)
    tokenizer = embedder.processor.tokenizer
    before = tokenizer.settings
    tokenizer.settings = replace(before, templates=("{}!", "a {}"))
    try:
        named = embedder.embed_labels(["cat"], ["{}!", "a {}"])
        np.testing.assert_allclose(embedder.embed_labels(["cat"]), named, atol=1e-6)
    finally:
        tokenizer.settings = before


def test_labels_met_before_are_not_encoded_again(model: SiglipModel, processor: SiglipProcessor) -> None:
    rows: list[int] = []
    hook = model.text_model.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    embedder = Embedder(model, processor, device="cpu", dtype="float32")
    hook.remove()
    before = embedder.embed_labels(["cat", "dog"], ["{}", "a {}"])
    before[:] = 0.0  # what the caller does with it is not seen again
    assert embedder.new_labels(["pig", "dog", "cat", "pig"], ["{}", "a {}"]) == ["pig"]
    assert embedder.new_labels(["dog", "cat"], ["a {}"]) == ["dog", "cat"]
    found = embedder.embed_labels(["pig", "dog", "cat", "dog"], ["{}", "a {}"])
    assert rows == [4, 2]
    afresh = Embedder(model, processor, device="cpu", dtype="float32")
    np.testing.assert_allclose(found, afresh.embed_labels(["pig", "dog", "cat", "dog"], ["{}", "a {}"]), atol=1e-6)
    embedder.embed_labels(["cat"], ["a {}", "{}"])
    assert rows == [4, 2, 2]


def test_many_prompts_are_encoded_in_blocks_with_the_same_result(
    model: SiglipModel, processor: SiglipProcessor
) -> None:
    embedder = Embedder(model, processor, device="cpu", dtype="float32", batch_size=256)
    templates = [f"{number} {{}}" for number in range(1100)]
    prompts = [template.replace("{}", "pig") for template in templates]
    mean = embedder.embed_texts(prompts).vectors.mean(axis=0)
    found = embedder.embed_labels(["cat", "pig"], templates)
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        ([], "a {}", "at least one text"),
        ("cat", "a {}", "at least one text, got 'cat'"),
        (["cat"], [], "at least one template"),
        (["cat"], ["a {}", "a cat"], "template 'a cat' has no {}"),
        (["\ud800"], "{}", "lone surrogate"),
    ],
)
def test_labels_and_templates_that_make_no_sense_are_errors(
    embedder: Embedder, labels: list[str], templates: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        embedder.embed_labels(labels, templates)


# ---- scores


def test_logits_are_scaled_and_shifted_cosines_and_probabilities_their_sigmoid(embedder: Embedder) -> None:
    # a fresh model has t = 10 and b = -10
    images, texts = np.eye(2, 3, dtype=np.float32), np.array([[0, 1, 0]], dtype=np.float32)
    np.testing.assert_allclose(embedder.logits(images, texts), [[-10.0], [0.0]], atol=1e-5)
    np.testing.assert_allclose(embedder.probabilities(images, texts), [[4.5397868e-05], [0.5]], rtol=1e-4)
    with pytest.raises(ShapeError, match="3 wide and those 2"):
        embedder.logits(images, texts[:, :2])


def test_similarity_is_the_cosine_of_all_pairs_of_either_kind(embedder: Embedder) -> None:
    images, texts = embedder.embed_images([picture(0), picture(1)]), embedder.embed_texts(["a", "b", "c"])
    expected = [
        [sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) for b in texts.vectors] for a in images.vectors
    ]
    np.testing.assert_allclose(embedder.similarity(images, texts), expected, atol=1e-6)
    np.testing.assert_allclose(embedder.similarity(images.vectors, texts), expected, atol=1e-6)
    np.testing.assert_allclose(np.diag(embedder.similarity(texts, texts)), 1.0, atol=1e-6)
    np.testing.assert_allclose(embedder.logits(images, texts), embedder.logits(images.vectors, texts.vectors))


def test_vectors_of_another_model_are_refused(embedder: Embedder) -> None:
    ours = embedder.embed_texts(["a"])
    theirs = Embeddings(ours.vectors, ours.indices, (), ours.names, "text", "f" * 64)
    with pytest.raises(InputError, match=f"made by the model {'f' * 64}, this one is {embedder.fingerprint}"):
        embedder.similarity(ours, theirs)


# ---- opened


def test_decoding_apart_from_encoding_gives_the_same_vectors_and_what_the_file_says(embedder: Embedder) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    exif.get_ifd(0x8769)[0x9003] = "2019:07:30 12:34:56"
    Image.fromarray(picture(0, (40, 90))).save(file, "JPEG", exif=exif)
    decoded = decode_picture(file)
    assert (decoded.width, decoded.height, decoded.num_frames) == (40, 90, 1) and decoded.image.size == (40, 90)
    assert decoded.taken == datetime(2019, 7, 30, 12, 34, 56)
    pixels = embedder.processor.image_processor.pixels(decoded)
    np.testing.assert_array_equal(
        embedder.encode_pixels(pixels[None]), embedder.embed_images([file.getvalue()]).vectors
    )
    with pytest.raises(ShapeError, match=r"takes pixels \[batch, 24, 24, 3\], got \[1, 20, 30, 3\]"):
        embedder.encode_pixels(picture(0)[None])


def test_texts_are_encoded_in_one_pass_and_the_first_that_is_none_is_named(embedder: Embedder) -> None:
    np.testing.assert_allclose(embedder.encode_texts(["a", "b"]), embedder.embed_texts(["a", "b"]).vectors, atol=1e-6)
    with pytest.raises(PreparationError, match="text 1"):
        embedder.encode_texts(["a", "\ud800"])


def test_a_web_address_is_fetched_by_the_embedder_and_not_below_it(embedder: Embedder, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(picture(0)).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{web.server_port}"
        found = embedder.embed_images([f"{address}/a.png", f"{address}/b.png"])
        with pytest.raises(UnreadableImage, match="is a web address, and preparing pictures reaches no network"):
            embedder.processor(images=f"{address}/a.png")
        web.shutdown()
    np.testing.assert_allclose(found.vectors, [alone(embedder, picture(0))], atol=1e-5)
    assert found.names == (f"{address}/a.png",) and found.failures[0].name == f"{address}/b.png"
    assert "404" in found.failures[0].reason


def test_scores_equal_those_of_the_model(embedder: Embedder) -> None:
    images, texts = [picture(0), picture(1)], ["a", "b", "c"]
    with torch.no_grad():
        expected = embedder.model(**embedder.processor(text=texts, images=images, return_tensors="pt"))
    found = embedder.logits(embedder.embed_images(images).vectors, embedder.embed_texts(texts).vectors)
    np.testing.assert_allclose(found, expected.logits_per_image, atol=1e-5)


# ---- device, dtype, identity


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


def test_texts_cut_and_labels_with_commas_are_said_once_and_real_sentences_are_not() -> None:
    embedder = Embedder.from_pretrained("nano", device="cpu")
    with pytest.warns(SiglipWarning, match=r"^1 of 2 texts are longer than the \d+ tokens") as caught:
        embedder.embed_texts(["a cat", "a cat " * 100, "a cat"])
    assert len(caught) == 1
    for labels in (["cat,dog,bird"], ["cat, dog, bird"], ["a fish", "cat,dog"]):
        with pytest.warns(SiglipWarning, match="'cat.*' is taken as one label, commas and all"):
            embedder.embed_labels(labels, "a photo of {}")
    with pytest.warns(SiglipWarning, match="1 of 2 texts are empty"):
        embedder.embed_labels(["", "a cat"], "a photo of {}")
    embedder.embed_labels(["a cat", "a red, round ball"], "a photo of {}")
