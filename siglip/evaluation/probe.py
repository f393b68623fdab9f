"""Unit vectors and labels -> how well a linear layer on frozen vectors classifies, with all labels or a few a class."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from siglip.errors import DataError
from siglip.evaluation.metrics import class_places, classification, per_class
from siglip.evaluation.pictures import Pictures
from siglip.evaluation.result import Result
from siglip.evaluation.zero_shot import worst

# strengths of the penalty that are tried; a tenth of the training pictures decides
_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_FEW_SHOT_PENALTY = 1.0


def linear_probe(train: Pictures, test: Pictures, classes: Sequence[str], *, seed: int = 0) -> Result:
    """Logistic regression on the training vectors; its L2 penalty is chosen on a tenth of them, then all are used.

    As in CLIP (Radford et al. 2021, Appendix A.3), without its finer search. Raises DataError for fewer than 2 classes.
    """
    train, test = train.labelled(), test.labelled()
    _check(train, classes)
    order = np.random.default_rng(seed).permutation(len(train))
    held, kept = train.at(order[: max(1, len(order) // 10)]), train.at(order[max(1, len(order) // 10) :])
    accuracy = {
        penalty: classification(
            _predict(fit_logistic(kept.vectors, kept.labels, len(classes), penalty), held), held.labels
        )
        for penalty in _PENALTIES
    }
    best = max(_PENALTIES, key=lambda penalty: accuracy[penalty]["top1"])
    scores = _predict(fit_logistic(train.vectors, train.labels, len(classes), best), test)
    return _result("linear-probe", test, scores, classes, {"penalty": best, "train_pictures": float(len(train))})


def k_shot(train: Pictures, test: Pictures, classes: Sequence[str], *, shots: int, seed: int = 0) -> Result:
    """Ridge regression on one-hot labels with `shots` pictures of each class, drawn by `seed`.

    As the few-shot evaluation of the paper's code (big_vision/evaluators/fewshot_lsr.py), at one penalty. Raises
    DataError if a class has fewer pictures.
    """
    train, test = train.labelled(), test.labelled()
    _check(train, classes)
    random = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    for label, name in enumerate(classes):
        own = np.flatnonzero(train.labels == label)
        if len(own) < shots:
            raise DataError(
                f"class {name!r} has {len(own)} training pictures, {shots} shots need as many; lower --shots"
            )
        rows.append(random.choice(own, shots, replace=False))
    few = train.at(np.concatenate(rows))
    scores = _predict(fit_ridge(few.vectors, few.labels, len(classes), _FEW_SHOT_PENALTY), test)
    return _result(f"{shots}-shot", test, scores, classes, {"train_pictures": float(len(few))})


def fit_logistic(
    vectors: Float32[np.ndarray, "n dim"], labels: Int64[np.ndarray, " n"], num_classes: int, penalty: float
) -> Float[Tensor, "dim_and_bias classes"]:
    """Weights and bias that minimise mean cross-entropy + penalty / 2 * |weights|^2, by L-BFGS in float64."""
    inputs, targets = _with_bias(vectors), torch.from_numpy(labels)
    weights = torch.zeros(inputs.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-7)

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(inputs @ weights, targets) + 0.5 * penalty * weights[:-1].square().sum()
        value.backward()
        return value

    solver.step(loss)  # pyright: ignore[reportArgumentType]
    return weights.detach()


def fit_ridge(
    vectors: Float32[np.ndarray, "n dim"], labels: Int64[np.ndarray, " n"], num_classes: int, penalty: float
) -> Float[Tensor, "dim_and_bias classes"]:
    """Weights and bias that minimise squared errors to -1/+1 targets + penalty * |weights|^2; closed form, float64."""
    inputs = _with_bias(vectors)
    targets = 2.0 * F.one_hot(torch.from_numpy(labels), num_classes).double() - 1.0
    penalties = torch.full((inputs.shape[1],), penalty, dtype=torch.float64)
    penalties[-1] = 1e-6  # the bias is not penalised; this keeps the system regular
    return torch.linalg.solve(inputs.T @ inputs + torch.diag(penalties), inputs.T @ targets)


def _with_bias(vectors: Float32[np.ndarray, "n dim"]) -> Float[Tensor, "n dim_and_bias"]:
    # unit vectors have tiny coordinates: scaled to unit variance, so that penalties mean the same at every width
    scaled = torch.from_numpy(vectors).double() * vectors.shape[1] ** 0.5
    return torch.cat([scaled, torch.ones(len(scaled), 1, dtype=torch.float64)], dim=1)


def _predict(weights: Float[Tensor, "dim_and_bias classes"], pictures: Pictures) -> Float[np.ndarray, "n classes"]:
    return (_with_bias(pictures.vectors) @ weights).numpy()


def _check(train: Pictures, classes: Sequence[str]) -> None:
    if len(np.unique(train.labels)) < 2:
        raise DataError("the training pictures are all of one class; a probe needs at least two")
    if train.labels.max() >= len(classes):
        raise DataError(f"the pictures have labels up to {train.labels.max()}, but {len(classes)} classes are named")


def _result(task: str, test: Pictures, scores: np.ndarray, classes: Sequence[str], more: dict[str, float]) -> Result:
    places = class_places(scores, test.labels)
    return Result(
        task=task,
        numbers={
            **classification(scores, test.labels),
            **more,
            "pictures": float(len(test)),
            "broken": float(test.num_broken),
        },
        per_class={classes[label]: value for label, value in per_class(places, test.labels).items()},
        mistakes=worst(test, scores, classes, 40),
    )
