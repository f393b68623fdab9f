import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Collection
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from siglip.errors import ShapeError, TrainingError
from siglip.losses import chunked_sigmoid_loss, sigmoid_loss
from tests.conftest import ROOT
from tests.losses.batches import LEARNABLE, Batch, assert_equal, random_batch, random_ids, value_and_gradients

FROZEN = [set(names) for count in range(4) for names in itertools.combinations(LEARNABLE, count)]


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 9),
    rows=st.integers(1, 11) | st.none(),
    seed=st.integers(0, 10**6),
    kinds=st.sets(st.sampled_from(["image_ids", "text_ids"])),
)
def test_chunk_size_changes_neither_the_value_nor_any_gradient(
    size: int, rows: int | None, seed: int, kinds: set[str]
) -> None:
    batch = random_batch(size, 4, seed)
    batch |= {name: value for name, value in random_ids(size, seed).items() if name in kinds}
    dense = value_and_gradients(sigmoid_loss, batch)
    assert_equal(value_and_gradients(chunked_sigmoid_loss, batch, rows=rows), dense, 1e-12)


@pytest.mark.parametrize("ids", [{}, random_ids(5, seed=1)], ids=["diagonal", "ids"])
def test_gradients_are_those_of_finite_differences(ids: Batch) -> None:
    def loss(*learnable: Tensor) -> Tensor:
        return chunked_sigmoid_loss(**dict(zip(LEARNABLE, learnable, strict=True)), **ids, rows=2)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(loss, [value.requires_grad_() for value in random_batch(5, 3, seed=0).values()])


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda names: "+".join(sorted(names)) or "none")
def test_what_is_frozen_does_not_change_the_gradient_of_the_rest(frozen: set[str]) -> None:
    batch = random_batch(5, 3, seed=6)
    dense = value_and_gradients(sigmoid_loss, batch, frozen=frozen)
    assert_equal(value_and_gradients(chunked_sigmoid_loss, batch, frozen=frozen, rows=2), dense, 1e-12)


def counted(batch: Batch, frozen: tuple[str, ...], *, gradients: bool = True) -> float:
    """Matrix products of a whole batch, n * n entries of d multiplications and additions each."""
    rows, width = batch["image_embeds"].shape

    def in_place(_: Any, left: tuple[int, int], right: tuple[int, int], **__: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        if gradients:
            value_and_gradients(chunked_sigmoid_loss, batch, frozen=frozen, rows=16)
        else:
            chunked_sigmoid_loss(**batch, rows=16)
    return counter.get_total_flops() / (2 * rows * rows * width)


@pytest.mark.parametrize(
    ("frozen", "products"),
    [((), 3), (("image_embeds",), 2), (("text_embeds",), 2), (LEARNABLE[:2], 2), (LEARNABLE[:3], 1)],
)
def test_three_matrix_products_and_none_for_what_is_frozen(frozen: tuple[str, ...], products: int) -> None:
    # the dots a row that give the gradient of t are n * d
    assert counted(random_batch(64, 32, seed=7), frozen) == pytest.approx(products, abs=1.5 / 64)


def test_without_gradients_only_the_logits_are_multiplied() -> None:
    batch = {name: value.requires_grad_() for name, value in random_batch(64, 32, seed=7).items()}
    with torch.no_grad():
        assert counted(batch, (), gradients=False) == 1.0
        torch.testing.assert_close(chunked_sigmoid_loss(**batch, rows=16), sigmoid_loss(**batch))


def test_a_factor_on_the_loss_is_a_factor_on_every_gradient() -> None:
    batch = random_batch(6, 4, seed=8)
    once = value_and_gradients(chunked_sigmoid_loss, batch)
    scaled = value_and_gradients(lambda **inputs: -2.5 * chunked_sigmoid_loss(**inputs), batch)
    assert_equal(scaled, {name: -2.5 * value for name, value in once.items()}, 1e-14)


def test_backward_may_be_called_again_on_a_retained_graph() -> None:
    batch = {name: value.requires_grad_() for name, value in random_batch(6, 4, seed=9).items()}
    loss = chunked_sigmoid_loss(**batch)
    first = torch.autograd.grad(loss, list(batch.values()), retain_graph=True)
    for one, two in zip(first, torch.autograd.grad(loss, list(batch.values())), strict=True):
        assert torch.equal(one, two)


def test_asking_for_a_second_derivative_is_an_error_not_a_wrong_number() -> None:
    batch = {name: value.requires_grad_() for name, value in random_batch(3, 4, seed=10).items()}
    loss = chunked_sigmoid_loss(**batch)
    with pytest.raises(TrainingError, match="cannot be differentiated twice"):
        torch.autograd.grad(loss, batch["image_embeds"], create_graph=True)


@pytest.mark.parametrize("logit_scale", [math.log(1e-6), math.log(1000.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_logits_neither_overflow_nor_vanish(logit_scale: float, dtype: torch.dtype) -> None:
    batch = random_batch(8, 4, seed=11, dtype=dtype) | {"logit_scale": torch.tensor(logit_scale, dtype=dtype)}
    found = value_and_gradients(chunked_sigmoid_loss, batch, rows=3)
    assert all(value.isfinite().all() for value in found.values())
    assert_equal(found, value_and_gradients(sigmoid_loss, batch), 1e-12 if dtype == torch.float64 else 1e-4)


def test_float32_stays_close_to_float64_on_a_large_batch() -> None:
    exact = random_batch(1024, 64, seed=12) | {"logit_scale": torch.tensor([4.7]), "logit_bias": torch.tensor([-12.7])}
    single = {name: value.float() for name, value in exact.items()}
    found = value_and_gradients(chunked_sigmoid_loss, single, rows=100)
    for name, expected in value_and_gradients(sigmoid_loss, exact).items():
        assert (found[name] - expected).norm() <= 2e-6 * expected.norm(), name


def test_half_precision_embeddings_inside_autocast_are_summed_in_float32() -> None:
    def inside(**batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return chunked_sigmoid_loss(**batch, rows=4)

    batch = random_batch(9, 16, seed=13, dtype=torch.float32)
    for name in ("image_embeds", "text_embeds"):
        batch[name] = batch[name].bfloat16()
    assert_equal(value_and_gradients(inside, batch), value_and_gradients(sigmoid_loss, batch), 2e-6)


def test_small_gradients_of_half_embeddings_survive_under_loss_scaling() -> None:
    # a lone negative far from its text: slope exp(-20) is below the smallest float16, but not times 2**16
    batch = {
        "image_embeds": torch.eye(2).half(),
        "text_embeds": torch.eye(2).half(),
        "logit_scale": torch.tensor(0.0),
        "logit_bias": torch.tensor(-20.0),
    }
    found = value_and_gradients(lambda **inputs: 2.0**16 * chunked_sigmoid_loss(**inputs), batch)
    expected = 2.0**16 * math.exp(-20.0) / 2
    assert found["image_embeds"].dtype == torch.float16
    assert found["image_embeds"][0, 1].item() == pytest.approx(expected, rel=2**-10)


def saved_bytes(batch: Batch, loss: Callable[..., Tensor], *, frozen: Collection[str] = ()) -> int:
    """What the loss of `batch` keeps for its backward pass."""
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(**{name: value.clone().requires_grad_(name not in frozen) for name, value in batch.items()})
    return total


def test_chunking_keeps_two_gradients_and_none_of_the_logits_for_backward() -> None:
    rows, width = 512, 16
    batch = random_batch(rows, width, seed=14, dtype=torch.float32)
    kept = saved_bytes(batch, chunked_sigmoid_loss)
    assert kept <= 2 * rows * width * 4 + 64
    assert kept < rows * rows * 4 / 4  # under a quarter of the logits
    assert saved_bytes(batch, sigmoid_loss) > rows * rows * 4


def test_nothing_is_kept_for_a_frozen_side() -> None:
    batch = random_batch(16, 8, seed=14, dtype=torch.float32)
    assert saved_bytes(batch, chunked_sigmoid_loss, frozen=LEARNABLE[:1]) <= 16 * 8 * 4 + 64
    assert saved_bytes(batch, chunked_sigmoid_loss, frozen=LEARNABLE[:2]) <= 64


PEAK = """
import re, torch
from pathlib import Path
from siglip.losses import chunked_sigmoid_loss

def peak_bytes():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def run(rows, width):
    torch.manual_seed(0)
    inputs = [torch.nn.functional.normalize(torch.randn(rows, width), dim=-1).requires_grad_() for _ in range(2)]
    scale, bias = torch.tensor([2.3], requires_grad=True), torch.tensor([-10.0], requires_grad=True)
    Path("/proc/self/clear_refs").write_text("5")  # forget what making the inputs took
    before = peak_bytes()
    chunked_sigmoid_loss(*inputs, logit_scale=scale, logit_bias=bias).backward()
    return peak_bytes() - before

torch.set_num_threads(1)
run(64, 8)
print(run(8192, 32))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_memory_is_a_few_embeddings_and_a_block_of_logits() -> None:
    rows, width = 8192, 32
    output = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    def bound(rows: int, width: int) -> int:
        # two gradients kept and two returned, logits and costs, and room for the allocator and the matrix library
        return 4 * rows * width * 4 + 2 * 32 * 2**20 + 48 * 2**20

    assert int(output) < bound(rows, width) < rows * rows * 4 / 2
    assert bound(65536, 768) < 1.5e9


def test_a_block_has_at_least_one_row() -> None:
    with pytest.raises(ShapeError, match="at least 1, got 0"):
        chunked_sigmoid_loss(**random_batch(3, 4, seed=15), rows=0)


def test_shapes_are_checked_as_in_the_dense_form() -> None:
    batch = random_batch(3, 4, seed=16)
    with pytest.raises(ShapeError, match=r"got images \[3, 4\] and texts \[2, 4\]"):
        chunked_sigmoid_loss(**{**batch, "text_embeds": batch["text_embeds"][:2]})
    with pytest.raises(ShapeError, match="the batch is empty"):
        chunked_sigmoid_loss(**{**batch, "text_embeds": torch.zeros(0, 4), "image_embeds": torch.zeros(0, 4)})
