"""Embedding many pictures equals embedding each alone, whatever the batches and broken ones among them."""

import io
import threading
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from siglip.embedder import Embedder
from siglip.errors import InputError, ShapeError, UnreadableImage
from siglip.model import SiglipModel
from siglip.processing import SiglipProcessor, decode_picture
from tests.embedder.conftest import WIDTH, alone, picture


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


def test_one_call_may_have_a_batch_size_of_its_own(model: SiglipModel, processor: SiglipProcessor) -> None:
    rows: list[int] = []
    hooks = [
        tower.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
        for tower in (model.vision_model, model.text_model)
    ]
    embedder = Embedder(model, processor, device="cpu", dtype="float32", batch_size=4)
    for hook in hooks:
        hook.remove()
    images, texts = [picture(index) for index in range(5)], list("abcde")
    found = embedder.embed_images(images, batch_size=2), embedder.embed_texts(texts, batch_size=3)
    assert rows == [2, 2, 1, 3, 2]
    np.testing.assert_allclose(found[0], embedder.embed_images(images), atol=1e-6)
    np.testing.assert_allclose(found[1], embedder.embed_texts(texts), atol=1e-6)
    assert rows == [2, 2, 1, 3, 2, 4, 1, 4, 1]
    for call in (embedder.embed_images, embedder.embed_texts):
        with pytest.raises(InputError, match="batch_size must be a whole number of at least 1, got 0"):
            call([], batch_size=0)


def test_keywords_of_sentence_transformers_mean_the_same_or_are_refused(
    embedder: Embedder, capsys: pytest.CaptureFixture[str]
) -> None:
    for call, items in ((embedder.embed_images, [picture(0), picture(1)]), (embedder.embed_texts, ["a", "b"])):
        found = call(  # pyright: ignore[reportCallIssue]
            items,  # pyright: ignore[reportArgumentType]
            show_progress_bar=True, normalize_embeddings=True, convert_to_numpy=True, convert_to_tensor=False,
            precision="float32",
        )  # fmt: skip
        assert "2/2" in capsys.readouterr().err
        # what they ask for: one float32 array of unit rows
        array = np.asarray(found)
        assert (type(array), array.dtype, array.shape) == (np.ndarray, np.float32, (2, WIDTH))
        np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1.0, atol=1e-6)
        call([], show_progress_bar=None)
        assert capsys.readouterr().err == ""
        for wrong, message in (
            ({"convert_to_tensor": True}, "convert_to_tensor=True, but here it is always False"),
            ({"normalize_embeddings": False}, "normalize_embeddings=False, but here it is always True"),
            ({"precision": "int8"}, "precision='int8', but here it is always 'float32'"),
            ({"bach_size": 2}, f"{call.__name__} has no keyword 'bach_size'; did you mean 'batch_size'"),
            ({"prompt": "x"}, f"{call.__name__} has no keyword 'prompt'; it takes progress, batch_size, show_prog"),
        ):
            with pytest.raises(InputError, match=message):
                call([], **wrong)


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
