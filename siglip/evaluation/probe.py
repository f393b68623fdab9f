"""Unit vectors and labels -> how well a linear layer on frozen vectors classifies, with all labels or a few a class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from siglip.errors import DataError, clip
from siglip.evaluation.classes import check_labels, classified
from siglip.evaluation.pictures import Pictures
from siglip.evaluation.result import Result

# strengths of the penalty that are tried, the strongest first
_PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# of so many parts each decides in turn, until so many training pictures have: a part of few says little
_PARTS, _JUDGED = 5, 1000
# of big_vision/configs/common_fewshot.py
_FEW_SHOT_PENALTY = 2.0**10
_FEW_SHOT_BIAS = 100.0


@dataclass(frozen=True, slots=True)
class Linear:
    """Scores of classes: each feature made zero in mean and one in spread on the training vectors, then one layer."""

    mean: Float64[np.ndarray, " dim"]
    spread: Float64[np.ndarray, " dim"]
    weights: Float64[np.ndarray, "dim classes"]
    bias: Float64[np.ndarray, " classes"]

    def scores(self, vectors: Float32[np.ndarray, "n dim"]) -> Float64[np.ndarray, "n classes"]:
        """One row a vector."""
        return (vectors - self.mean) / self.spread @ self.weights + self.bias


def linear_probe(
    train: Pictures, test: Pictures, classes: Sequence[str], *, seed: int = 0, num_mistakes: int = 40
) -> Result:
    """Logistic regression on the training vectors; its L2 penalty is chosen on parts of them, then all are used.

    As in CLIP (Radford et al. 2021, Appendix A.3), with a coarser search, standardised features, and cross-validation.
    Raises DataError for fewer than 2 classes, or a label without a class name.
    """
    train, tested = _checked(train, classes), _checked(test, classes)
    if len(np.unique(train.labels)) < 2:
        raise DataError("the training pictures are all of one class; a probe needs at least two")
    fitted, best = fit_probe(train.vectors, train.labels, len(classes), seed=seed)
    return classified(
        "linear-probe",
        tested,
        [fitted.scores(tested.vectors)],
        classes,
        counts={"without_class": len(test) - len(tested), "train_pictures": len(train)},
        settings={"penalty": best, "seed": seed},
        num_mistakes=num_mistakes,
    )


def k_shot(
    train: Pictures,
    test: Pictures,
    classes: Sequence[str],
    *,
    shots: int,
    draws: int = 3,
    seed: int = 0,
    num_mistakes: int = 40,
) -> Result:
    """Ridge regression on one-hot labels with `shots` pictures of each class, the mean over `draws` of them by `seed`.

    The few-shot evaluation of the paper's code (big_vision/evaluators/fewshot_lsr.py, which also makes three draws).
    Raises DataError if a class has fewer pictures, or a label has no class name.
    """
    train, tested = _checked(train, classes), _checked(test, classes)
    of_class = {int(label): np.flatnonzero(train.labels == label) for label in np.union1d(train.labels, tested.labels)}
    for label, rows in of_class.items():
        if len(rows) < shots:
            raise DataError(
                f"class {clip(repr(classes[label]))} has {len(rows)} training pictures, {shots} shots need as "
                f"many; take fewer"
            )
    random = np.random.default_rng(seed)
    scores: list[np.ndarray] = []
    for _ in range(draws):
        few = train.at(np.concatenate([random.choice(rows, shots, replace=False) for rows in of_class.values()]))
        scores.append(fit_ridge(few.vectors, few.labels, len(classes)).scores(tested.vectors))
    return classified(
        "k-shot",
        tested,
        scores,
        classes,
        counts={"without_class": len(test) - len(tested), "train_pictures": shots * len(of_class)},
        settings={"shots": shots, "draws": draws, "seed": seed},
        num_mistakes=num_mistakes,
    )


def fit_probe(
    vectors: Float32[np.ndarray, "n dim"], labels: Int64[np.ndarray, " n"], num_classes: int, *, seed: int = 0
) -> tuple[Linear, float]:
    """Logistic regression, and its penalty: the one that leaves the least cross-entropy on parts that were kept out."""
    parts = np.array_split(np.random.default_rng(seed).permutation(len(labels)), _PARTS)
    costs = dict.fromkeys(_PENALTIES, 0.0)
    judged = 0
    for number, part in enumerate(parts):
        if judged >= _JUDGED or not len(part):
            break
        judged += len(part)
        rest = np.concatenate([*parts[:number], *parts[number + 1 :]])
        targets = torch.from_numpy(labels[part])
        for penalty in _PENALTIES:
            scores = fit_logistic(vectors[rest], labels[rest], num_classes, penalty).scores(vectors[part])
            costs[penalty] += F.cross_entropy(torch.from_numpy(scores), targets, reduction="sum").item()
    best = min(_PENALTIES, key=lambda penalty: costs[penalty])
    return fit_logistic(vectors, labels, num_classes, best), best


def fit_logistic(
    vectors: Float32[np.ndarray, "n dim"], labels: Int64[np.ndarray, " n"], num_classes: int, penalty: float
) -> Linear:
    """Minimise mean cross-entropy + penalty / 2 * |weights|^2 on standardised features, by L-BFGS in float64."""
    mean, spread = _moments(vectors)
    inputs, targets = torch.from_numpy((vectors - mean) / spread), torch.from_numpy(labels)
    weights = torch.zeros(inputs.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights, bias], max_iter=500, tolerance_grad=1e-6, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(inputs @ weights + bias, targets) + 0.5 * penalty * weights.square().sum()
        value.backward()
        return value

    solver.step(loss)  # pyright: ignore[reportArgumentType]
    return Linear(mean, spread, weights.detach().numpy(), bias.detach().numpy())


def fit_ridge(
    vectors: Float32[np.ndarray, "n dim"],
    labels: Int64[np.ndarray, " n"],
    num_classes: int,
    penalty: float = _FEW_SHOT_PENALTY,
) -> Linear:
    """Minimise squared errors to -1/+1 targets + penalty * |weights|^2 on standardised features; closed form.

    The bias is penalised as the weight of a constant feature of 100, which is next to nothing.
    """
    mean, spread = _moments(vectors)
    inputs = np.pad((vectors - mean) / spread, ((0, 0), (0, 1)), constant_values=_FEW_SHOT_BIAS)
    targets = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0)
    weights = np.linalg.solve(inputs.T @ inputs + penalty * np.eye(inputs.shape[1]), inputs.T @ targets)
    return Linear(mean, spread, weights[:-1], weights[-1] * _FEW_SHOT_BIAS)


def _moments(vectors: Float32[np.ndarray, "n dim"]) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, " dim"]]:
    # the small number keeps a feature that never changes from being divided by 0
    return vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64) + 1e-5


def _checked(pictures: Pictures, classes: Sequence[str]) -> Pictures:
    labelled = pictures.labelled()
    check_labels(labelled, classes)
    return labelled
