"""Heat lies where the thing is: two things side by side, of which the model knows both."""

from itertools import permutations

import numpy as np
import pytest
from PIL import Image

from siglip.config import SiglipConfig
from siglip.embedder import Embedder
from siglip.errors import InputError
from siglip.model import SiglipModel
from siglip.processing import read_image
from siglip.search.explain import heat_maps, heat_over
from tests.conftest import ROOT

SAMPLES = ROOT / "samples"


def known_things(embedder: Embedder) -> dict[str, Image.Image]:
    """Drawings that the model tells from all labels of the samples, by the name that labels.txt has for them."""
    labels = [line for line in (SAMPLES / "labels.txt").read_text().splitlines() if line and not line.startswith("#")]
    vectors = embedder.embed_labels(labels, "{}")
    found: dict[str, Image.Image] = {}
    for path in sorted(SAMPLES.glob("*.png")):
        best = labels[int((vectors @ embedder.embed_images([path]).vectors[0]).argmax())]
        if set(best.split()) & set(path.stem.split("_")):
            found[best] = read_image(path).resize((64, 64))
    return found


def test_most_heat_lies_on_the_half_where_the_thing_is(embedder: Embedder) -> None:
    things = dict(list(known_things(embedder).items())[:6])
    assert len(things) >= 3
    shares: list[float] = []
    for left, right in permutations(things, 2):
        both = Image.new("RGB", (128, 64))
        both.paste(things[left], (0, 0))
        both.paste(things[right], (64, 0))
        maps = heat_maps(embedder, both, [left, right])
        assert maps.shape[0] == 2
        assert maps.min() >= 0
        np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-4)
        half = maps.shape[2] // 2
        shares += [float(maps[0, :, :half].sum()), float(maps[1, :, half:].sum())]
    assert np.mean(shares) >= 0.8


def test_a_map_does_not_depend_on_the_other_texts(embedder: Embedder) -> None:
    picture = read_image(SAMPLES / "cat.jpg")
    together = heat_maps(embedder, picture, ["cat", "teapot"])
    np.testing.assert_allclose(heat_maps(embedder, picture, ["cat"])[0], together[0], atol=1e-5)


def test_heat_is_drawn_where_it_is_and_nowhere_else() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[:, 2:] = 0.125
    drawn = np.asarray(heat_over(Image.new("RGB", (80, 40), (0, 0, 255)), heat), np.int16)
    assert np.ptp(drawn[:, :20], axis=(0, 1)).max() <= 1
    assert drawn[20, 5, 2] > drawn[20, 5, 0]
    assert drawn[20, 75, 0] > drawn[20, 75, 2]


def test_what_cannot_be_explained_is_an_error(embedder: Embedder) -> None:
    picture = read_image(SAMPLES / "cat.jpg")
    with pytest.raises(InputError, match="at least one text"):
        heat_maps(embedder, picture, [])
    values = embedder.model.config.to_dict()
    values["vision_config"]["vision_use_head"] = False
    headless = Embedder(SiglipModel(SiglipConfig.from_dict(values)), embedder.processor, device="cpu")
    with pytest.raises(InputError, match="no pooling head"):
        heat_maps(headless, picture, ["cat"])
