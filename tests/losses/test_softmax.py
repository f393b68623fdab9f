import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from siglip.errors import ShapeError
from siglip.losses import softmax_loss
from tests.losses.batches import assert_equal, random_batch, value_and_gradients


def test_two_perfect_pairs_cost_what_two_by_two_softmax_costs() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    loss = softmax_loss(eye, eye, logit_scale=torch.tensor(math.log(3.0)))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-3.0)), abs=1e-7)


def test_value_and_gradients_are_those_of_the_two_cross_entropies() -> None:
    def plain(*, image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor) -> Tensor:
        logits = logit_scale.exp() * image_embeds @ text_embeds.T
        rows, columns = F.log_softmax(logits, dim=1).diagonal(), F.log_softmax(logits, dim=0).diagonal()
        return -(rows.mean() + columns.mean()) / 2

    batch = random_batch(7, 5, seed=0)
    del batch["logit_bias"]
    assert_equal(value_and_gradients(softmax_loss, batch), value_and_gradients(plain, batch), 1e-12)


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"got images \[2, 3\] and texts \[1, 3\]"):
        softmax_loss(torch.zeros(2, 3), torch.zeros(1, 3), logit_scale=torch.tensor(0.0))
