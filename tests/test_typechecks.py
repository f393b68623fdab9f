"""Annotations of siglip are checked while tests run: with types alone, and with the shapes of arrays."""

from typing import Any

import pytest
import torch

from siglip.config import SiglipTextConfig
from siglip.errors import ConfigError, did_you_mean
from siglip.losses import sigmoid_loss


def test_a_text_must_be_a_text() -> None:
    number: Any = 3
    with pytest.raises(TypeError, match="did_you_mean"):
        did_you_mean(number, ["cat"])


def test_an_array_must_have_the_axes_that_are_named() -> None:
    one = torch.tensor(0.0)
    with pytest.raises(TypeError, match="image_embeds"):
        sigmoid_loss(torch.zeros(2), torch.zeros(2, 4), logit_scale=one, logit_bias=one)


def test_a_configuration_says_itself_what_it_refuses() -> None:
    number: Any = 2.5
    with pytest.raises(ConfigError, match=r"must be a whole number, got 2\.5"):
        SiglipTextConfig(hidden_size=number)
