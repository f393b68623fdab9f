import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from siglip.errors import ShapeError
from siglip.losses import sigmoid_loss
from siglip.model import SiglipModel
from tests.conftest import ROOT
from tests.losses.batches import Batch, assert_equal, open_clip_losses, random_batch, random_ids, value_and_gradients

GOLDEN = json.loads((ROOT / "tests/golden/sigmoid_loss.json").read_text())


def perfect_pairs(count: int, *, logit_scale: float, logit_bias: float) -> Batch:
    """Picture i and text i are the same vector, at right angles to all others."""
    return {
        "image_embeds": torch.eye(count, dtype=torch.float64),
        "text_embeds": torch.eye(count, dtype=torch.float64),
        "logit_scale": torch.tensor(logit_scale, dtype=torch.float64),
        "logit_bias": torch.tensor(logit_bias, dtype=torch.float64),
    }


def cost(logit: float) -> float:
    return math.log1p(math.exp(logit))


def test_two_perfect_pairs_cost_log_2_plus_one_negative_each() -> None:
    # with t = 10 and b = -10 a perfect pair has logit 0, a pair at right angles -10
    loss = sigmoid_loss(**perfect_pairs(2, logit_scale=math.log(10.0), logit_bias=-10.0))
    assert loss.item() == pytest.approx(math.log(2.0) + cost(-10.0), abs=1e-15)


def test_the_sum_over_pairs_is_divided_by_images_not_by_pairs() -> None:
    loss = sigmoid_loss(**perfect_pairs(5, logit_scale=0.0, logit_bias=0.0))
    assert loss.item() == pytest.approx(cost(-1.0) + 4 * math.log(2.0), abs=1e-15)


def test_a_picture_seen_twice_is_no_false_negative_when_its_id_says_so() -> None:
    # pictures 0 and 1 are the same, so each fits both texts; picture 2 fits only its own
    batch = perfect_pairs(3, logit_scale=0.0, logit_bias=2.0)
    loss = sigmoid_loss(**batch, image_ids=torch.tensor([7, 7, 8]))
    expected = (3 * cost(-3.0) + 2 * cost(-2.0) + 4 * cost(2.0)) / 3
    assert loss.item() == pytest.approx(expected, abs=1e-15)


def test_equal_ids_are_not_followed_through_a_third_pair() -> None:
    # 0 and 1 share the picture, 1 and 2 the text; 0 with 2 stays a negative
    ids = {"image_ids": torch.tensor([0, 0, 1]), "text_ids": torch.tensor([5, 6, 6])}
    loss = sigmoid_loss(**perfect_pairs(3, logit_scale=0.0, logit_bias=2.0), **ids)
    assert loss.item() == pytest.approx((3 * cost(-3.0) + 4 * cost(-2.0) + 2 * cost(2.0)) / 3, abs=1e-15)


def test_a_negative_id_is_unknown_and_equals_nothing() -> None:
    batch = random_batch(4, 3, seed=0)
    unknown = {"image_ids": torch.full((4,), -1), "text_ids": torch.tensor([-3, -3, -2, 9])}
    assert torch.equal(sigmoid_loss(**batch, **unknown), sigmoid_loss(**batch))


def test_ids_that_all_differ_leave_the_loss_of_the_paper() -> None:
    batch = random_batch(4, 3, seed=1)
    # a picture's id is never compared with a text's
    ids = {"image_ids": torch.arange(4), "text_ids": torch.tensor([3, 0, 1, 2])}
    assert torch.equal(sigmoid_loss(**batch, **ids), sigmoid_loss(**batch))


def slow_loss(batch: Batch, image_ids: Tensor | None, text_ids: Tensor | None) -> float:
    """The definition, one pair at a time, in Python."""
    images, texts = batch["image_embeds"].tolist(), batch["text_embeds"].tolist()
    t, b = math.exp(batch["logit_scale"].item()), batch["logit_bias"].item()
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            positive = i == j
            for ids in (image_ids, text_ids):
                positive |= ids is not None and ids[i].item() >= 0 and ids[i].item() == ids[j].item()
            logit = t * sum(x * y for x, y in zip(image, text, strict=True)) + b
            total += cost(-logit if positive else logit)
    return total / len(images)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 7), seed=st.integers(0, 10**6), kinds=st.sets(st.sampled_from(["image_ids", "text_ids"])))
def test_it_is_the_definition_summed_pair_by_pair(rows: int, seed: int, kinds: set[str]) -> None:
    batch = random_batch(rows, 3, seed)
    ids = {name: value for name, value in random_ids(rows, seed).items() if name in kinds}
    expected = slow_loss(batch, ids.get("image_ids"), ids.get("text_ids"))
    assert sigmoid_loss(**batch, **ids).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{len(case['inputs']['image_embeds'])}-rows")
def test_value_and_gradients_are_those_of_the_jax_original(case: dict[str, Any]) -> None:
    def tensors(values: dict[str, Any]) -> Batch:
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    expected = {"loss": torch.tensor(case["loss"], dtype=torch.float64), **tensors(case["gradients"])}
    assert_equal(value_and_gradients(sigmoid_loss, tensors(case["inputs"])), expected, 1e-12)


@pytest.mark.parametrize("rows", [1, 2, 17])
def test_value_and_gradients_are_those_of_open_clip(rows: int) -> None:
    peer = open_clip_losses().SigLipLoss()

    def peer_loss(*, image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
        return peer(image_embeds, text_embeds, logit_scale.exp(), logit_bias)

    batch = random_batch(rows, 8, seed=rows)
    assert_equal(value_and_gradients(sigmoid_loss, batch), value_and_gradients(peer_loss, batch), 1e-12)


def test_the_model_returns_the_same_loss(tiny_model: SiglipModel) -> None:
    input_ids = torch.randint(0, 100, (5, 16), generator=torch.Generator().manual_seed(0))
    pixels = torch.randn(5, 3, 30, 30, generator=torch.Generator().manual_seed(1))
    output = tiny_model(input_ids, pixels, return_loss=True)
    loss = sigmoid_loss(
        output.image_embeds, output.text_embeds, logit_scale=tiny_model.logit_scale, logit_bias=tiny_model.logit_bias
    )
    torch.testing.assert_close(output.loss, loss)


def test_autocast_does_not_lower_the_precision() -> None:
    def inside(**batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return sigmoid_loss(**batch)

    batch = random_batch(9, 16, seed=2, dtype=torch.float32)
    assert_equal(value_and_gradients(inside, batch), value_and_gradients(sigmoid_loss, batch), 0.0)


def test_half_precision_embeddings_give_a_float32_loss_and_their_own_dtype_of_gradient() -> None:
    batch = random_batch(9, 16, seed=3, dtype=torch.float32)
    half = {**batch, "image_embeds": batch["image_embeds"].bfloat16(), "text_embeds": batch["text_embeds"].bfloat16()}
    found = value_and_gradients(sigmoid_loss, half)
    exact = value_and_gradients(sigmoid_loss, {name: value.double() for name, value in half.items()})
    assert found["loss"].dtype == torch.float32
    assert found["loss"].item() == pytest.approx(exact["loss"].item(), rel=1e-6)
    assert found["image_embeds"].dtype == torch.bfloat16
    torch.testing.assert_close(found["image_embeds"], exact["image_embeds"].bfloat16(), rtol=2**-7, atol=1e-6)


def test_scale_and_bias_may_have_no_axis_or_one() -> None:
    batch = random_batch(3, 4, seed=4)
    bare = {**batch, "logit_scale": batch["logit_scale"][0], "logit_bias": batch["logit_bias"][0]}
    mixed = {**batch, "logit_scale": batch["logit_scale"][0]}
    assert sigmoid_loss(**batch) == sigmoid_loss(**bare) == sigmoid_loss(**mixed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text_embeds": torch.zeros(2, 4)}, r"got images \[3, 4\] and texts \[2, 4\]"),
        ({"text_embeds": torch.zeros(3, 5)}, r"got images \[3, 4\] and texts \[3, 5\]"),
        ({"logit_scale": torch.zeros(3)}, r"logit_scale must be one number .* got \[3\]"),
        ({"logit_bias": torch.zeros(1, 2)}, r"logit_bias must be one number .* got \[1, 2\]"),
        ({"image_ids": torch.arange(2)}, r"image_ids must hold one id for each pair, \[3\], got \[2\]"),
        ({"text_ids": torch.arange(4)}, r"text_ids must hold one id for each pair, \[3\], got \[4\]"),
        ({"image_embeds": torch.zeros(0, 4), "text_embeds": torch.zeros(0, 4)}, "the batch is empty"),
    ],
)
def test_what_does_not_fit_together_is_named(changed: Batch, message: str) -> None:
    batch = random_batch(3, 4, seed=5, dtype=torch.float32)
    with pytest.raises(ShapeError, match=message):
        sigmoid_loss(**{**batch, **changed})
