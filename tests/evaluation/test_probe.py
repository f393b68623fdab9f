"""Linear layers equal slow references, the original few-shot code, and what can be said of clusters by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from siglip.errors import DataError
from siglip.evaluation import Pictures, k_shot, linear_probe
from siglip.evaluation.metrics import classification
from siglip.evaluation.probe import fit_logistic, fit_ridge
from tests.evaluation.conftest import hand_made

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())
CLASSES = ["ant", "bee", "cat"]


def clusters(per_class: int, seed: int, noise: float = 0.2, moved: float = 0.0) -> Pictures:
    """Three directions in six dimensions, and pictures around them; `moved` is added to all."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    return hand_made(np.eye(6)[labels] + moved + noise * random.normal(size=(len(labels), 6)), labels=labels.tolist())


def random_problem(seed: int, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(3), random.integers(0, 3, count - 3)])
    return (random.normal(size=(count, width)) + 2 + labels[:, None]).astype(np.float32), labels


@pytest.mark.parametrize("case", GOLDEN["few_shot"]["cases"], ids=lambda case: str(len(case["labels"])))
def test_few_shot_accuracy_is_that_of_the_original_code(case: dict[str, Any]) -> None:
    train, test = np.array(case["train"], np.float32), np.array(case["test"], np.float32)
    fitted = fit_ridge(train, np.array(case["labels"]), case["classes"])
    found = classification(fitted.scores(test), np.array(case["test_labels"]))["top1"]
    assert found == pytest.approx(case["accuracy"], abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 12), st.integers(1, 8))
def test_ridge_equals_gradient_descent_without_the_closed_form(seed: int, count: int, width: int) -> None:
    vectors, labels = random_problem(seed, count, width)
    penalty = 3.0
    fitted = fit_ridge(vectors, labels, 3, penalty)
    features = (vectors - vectors.mean(0, dtype=float)) / (vectors.std(0, dtype=float) + 1e-5)
    inputs = np.hstack([features, np.full((count, 1), 100.0)])
    targets = 2.0 * np.eye(3)[labels] - 1
    # at the minimum the gradient of |inputs w - targets|^2 + penalty |w|^2 is zero
    weights = np.vstack([fitted.weights, fitted.bias / 100])
    gradient = inputs.T @ (inputs @ weights - targets) + penalty * weights
    assert np.abs(gradient).max() < 1e-8 * count * 100**2
    assert np.allclose(fitted.scores(vectors), inputs @ weights, atol=1e-9)


def test_ridge_by_hand_on_two_points() -> None:
    # one feature, standardised to -1 and +1; w = (x'y) / (x'x + penalty) = 2 / (2 + 2); targets cancel in the bias
    fitted = fit_ridge(np.array([[1.0], [3.0]], np.float32), np.array([0, 1]), 2, 2.0)
    assert fitted.scores(np.array([[1.0], [3.0], [2.0]], np.float32)) == pytest.approx(
        np.array([[0.5, -0.5], [-0.5, 0.5], [0.0, 0.0]]), abs=1e-4
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 40), st.integers(1, 8), st.sampled_from([1.0, 1e-2, 1e-4]))
def test_the_gradient_is_zero_where_logistic_regression_ends(seed: int, count: int, width: int, penalty: float) -> None:
    vectors, labels = random_problem(seed, count, width)
    fitted = fit_logistic(vectors, labels, 3, penalty)
    weights, bias = (torch.tensor(value, requires_grad=True) for value in (fitted.weights, fitted.bias))
    inputs = torch.from_numpy((vectors - fitted.mean) / fitted.spread)
    loss = F.cross_entropy(inputs @ weights + bias, torch.from_numpy(labels)) + penalty / 2 * (weights**2).sum()
    loss.backward()
    assert weights.grad is not None
    assert bias.grad is not None
    assert max(weights.grad.abs().max().item(), bias.grad.abs().max().item()) < 1e-5


def test_logistic_regression_equals_newtons_method() -> None:
    vectors, labels = random_problem(3, 30, 2)
    labels = labels % 2
    fitted = fit_logistic(vectors, labels, 2, 0.1)
    # two classes: the difference of the scores is one logistic regression with half the penalty
    inputs = np.hstack(
        [(vectors - vectors.mean(0, dtype=float)) / (vectors.std(0, dtype=float) + 1e-5), np.ones((30, 1))]
    )
    penalties = np.diag([0.05, 0.05, 0.0])
    weights = np.zeros(3)
    for _ in range(30):
        chance = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (chance - labels) / 30 + penalties @ weights
        hessian = (inputs.T * (chance * (1 - chance))) @ inputs / 30 + penalties
        weights -= np.linalg.solve(hessian, gradient)
    assert fitted.weights[:, 1] - fitted.weights[:, 0] == pytest.approx(weights[:2], abs=1e-4)
    assert fitted.bias[1] - fitted.bias[0] == pytest.approx(weights[2], abs=1e-4)


@pytest.mark.parametrize("moved", [0.0, 5.0])
def test_clusters_are_told_apart_also_far_from_the_origin(moved: float) -> None:
    noise = 0.2 if moved else 0.1
    train, test = clusters(12, 0, noise, moved), clusters(9, 1, noise, moved)
    for result in (linear_probe(train, test, CLASSES), k_shot(train, test, CLASSES, shots=10)):
        assert result.numbers["top1"] > 0.9
        assert result.counts["pictures"] == 27
        assert {found.name for found in result.per_class} == set(CLASSES)


def test_labels_without_meaning_are_not_learned() -> None:
    random = np.random.default_rng(0)
    train = hand_made(random.normal(size=(90, 6)), labels=random.integers(0, 3, 90).tolist())
    test = hand_made(random.normal(size=(600, 6)), labels=random.integers(0, 3, 600).tolist())
    assert linear_probe(train, test, CLASSES).numbers["top1"] == pytest.approx(1 / 3, abs=0.07)
    assert k_shot(train, test, CLASSES, shots=5).numbers["top1"] == pytest.approx(1 / 3, abs=0.07)


def test_shots_are_drawn_for_every_class_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []

    def watched(vectors: np.ndarray, labels: np.ndarray, num_classes: int) -> object:
        drawn.append(labels.tolist())
        return fit_ridge(vectors, labels, num_classes)

    monkeypatch.setattr("siglip.evaluation.probe.fit_ridge", watched)
    result = k_shot(clusters(12, 0), clusters(2, 1), CLASSES, shots=4, draws=2)
    assert drawn == [[0] * 4 + [1] * 4 + [2] * 4] * 2
    assert result.counts["train_pictures"] == 12
    assert result.settings == {"shots": 4, "draws": 2, "seed": 0}


def test_few_shot_numbers_are_the_mean_over_the_draws_and_follow_the_seed() -> None:
    train, test = clusters(12, 0, 0.6), clusters(40, 1, 0.6)
    shares = [k_shot(train, test, CLASSES, shots=1, draws=1, seed=seed).numbers["top1"] for seed in (0, 0, 1, 2)]
    assert shares[0] == shares[1]
    assert len(set(shares)) > 1
    result = k_shot(train, test, CLASSES, shots=1, draws=50)
    assert len({found.pictures for found in result.per_class}) == 1
    assert result.numbers["top1"] == pytest.approx(np.mean([found.top1 for found in result.per_class]), abs=1e-9)


def test_the_penalty_is_strong_where_labels_mean_little_and_weak_where_they_are_sure() -> None:
    random = np.random.default_rng(0)
    noise = hand_made(random.normal(size=(90, 6)), labels=random.integers(0, 3, 90).tolist())
    assert linear_probe(noise, noise, CLASSES).settings == {"penalty": 1.0, "seed": 0}
    penalty = linear_probe(clusters(20, 0, 0.01), clusters(5, 1, 0.01), CLASSES).settings["penalty"]
    assert isinstance(penalty, float)
    assert penalty <= 1e-4


def test_what_cannot_be_learned_is_refused() -> None:
    train = clusters(4, 0)
    with pytest.raises(DataError, match="class 'ant' has 4 training pictures, 5 shots need as many"):
        k_shot(train, train, CLASSES, shots=5)
    with pytest.raises(DataError, match="class 'cat' has 0 training pictures"):
        k_shot(train.at(np.flatnonzero(train.labels < 2)), train, CLASSES, shots=1)
    with pytest.raises(DataError, match="all of one class"):
        linear_probe(train.at(np.flatnonzero(train.labels == 0)), train, CLASSES)
    for task in (linear_probe, lambda *given: k_shot(*given, shots=1)):
        with pytest.raises(DataError, match="labels up to 2"):
            task(train, train, CLASSES[:2])
        with pytest.raises(DataError, match="labels up to 2"):
            task(train.at(np.flatnonzero(train.labels < 2)), train, CLASSES[:2])
        with pytest.raises(DataError, match="no picture has a class"):
            task(train, hand_made(np.eye(6)), CLASSES)
