"""Streams are read as far as needed, in threads that all calls share, and end when the caller does."""

import io
import itertools
import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from siglip.embedder import Embedder
from siglip.errors import Failure
from siglip.model import SiglipModel
from siglip.processing import SiglipProcessor
from tests.embedder.conftest import picture


def decoding_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("siglip-decode")}


class Counted(Iterator[np.ndarray]):
    """Pictures without end that know how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __next__(self) -> np.ndarray:
        self.taken += 1
        return picture(self.taken % 5)


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
