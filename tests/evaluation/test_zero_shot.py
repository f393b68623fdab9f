"""Pictures that are, as vectors, prompts of their class; and the names and prompts that are shipped."""

import numpy as np
import pytest
import torch.nn.functional as F
from torch import from_numpy

from siglip.embedder import Embedder
from siglip.errors import ConfigError, DataError
from siglip.evaluation import benchmark_classes, benchmark_templates, evaluate_zero_shot
from tests.evaluation.conftest import hand_made

CLASSES = ["owl", "kite", "mill"]
TEMPLATES = ["a photo of {}.", "{}"]


def ensemble(embedder: Embedder, name: str) -> np.ndarray:
    prompts = embedder.embed_texts([template.replace("{}", name) for template in TEMPLATES]).vectors
    return F.normalize(from_numpy(prompts).mean(dim=0), dim=0).numpy()


def test_pictures_at_the_averaged_prompts_of_their_class_are_right(embedder: Embedder) -> None:
    vectors = np.stack([ensemble(embedder, CLASSES[place]) for place in (0, 1, 2, 2, 0)])
    pictures = hand_made(vectors, labels=[0, 1, 2, 1, -1])
    done: list[int] = []
    result = evaluate_zero_shot(embedder, pictures, CLASSES, TEMPLATES, progress=done.append)
    assert result.numbers == {"top1": 0.75, "mean_per_class": pytest.approx(5 / 6)}
    assert result.counts == {"pictures": 4, "classes": 3, "without_class": 1, "broken": 0}
    assert result.settings == {"templates": TEMPLATES}
    (mistake,) = result.mistakes
    assert (mistake.index, mistake.expected.text, mistake.found[0].text) == (30, "kite", "mill")
    assert mistake.found[0].score == pytest.approx(1, abs=1e-5)
    assert sum(done) == 3


def test_more_classes_than_are_encoded_at_once_keep_their_order(embedder: Embedder) -> None:
    classes = [f"class {number}" for number in range(37)]
    vectors = embedder.embed_texts(classes).vectors
    result = evaluate_zero_shot(embedder, hand_made(vectors, labels=range(37)), classes, ["{}"])
    assert result.numbers == {"top1": 1.0, "top5": 1.0, "mean_per_class": 1.0}


def test_pictures_without_classes_and_classes_without_names_are_refused(embedder: Embedder) -> None:
    with pytest.raises(DataError, match="no picture has a class"):
        evaluate_zero_shot(embedder, hand_made(np.eye(24)), CLASSES, TEMPLATES)
    with pytest.raises(DataError, match="labels up to 3"):
        evaluate_zero_shot(embedder, hand_made(np.eye(24)[:2], labels=[0, 3]), CLASSES, TEMPLATES)


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("cifar10", 10, {0: "airplane", 3: "cat", 9: "truck"}),
        ("cifar100", 100, {0: "apple", 42: "leopard", 99: "worm"}),
        ("imagenet", 1000, {0: "tench", 207: "Golden Retriever", 999: "toilet paper"}),
    ],
)
def test_names_of_benchmarks_are_shipped_in_the_order_of_their_labels(
    name: str, count: int, some: dict[int, str]
) -> None:
    names = benchmark_classes(name)
    assert len(names) == count
    assert {place: names[place] for place in some} == some
    assert all(text and text == text.strip() and "_" not in text for text in names)
    # the published ImageNet list gives two pairs of classes one name
    assert len(set(names)) == {"imagenet": 998}.get(name, count)


def test_the_prompts_are_the_81_of_the_papers_evaluation() -> None:
    templates = benchmark_templates("imagenet")
    assert len(set(templates)) == 81
    assert all(template.count("{}") == 1 for template in templates)
    assert templates[-1] == "{}"


def test_other_benchmarks_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'mnist' are shipped; there are cifar10, cifar100, imagenet"):
        benchmark_classes("mnist")
    with pytest.raises(ConfigError, match="'cifar10' are shipped; there are those of imagenet"):
        benchmark_templates("cifar10")
