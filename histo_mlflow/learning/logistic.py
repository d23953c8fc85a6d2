"""Multinomial logistic regression on features, for one cost after another; knows nothing of networks, tiles or validation."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from histo_mlflow.errors import NonFiniteLossError

Floats = NDArray[np.float64]

COSTS = tuple(float(cost) for cost in np.logspace(-5, 1, 13))
"""Values of C, small ones first: what an error costs against the penalty on weights."""

_MOST_ITERATIONS = 1000
# Of few tiles the minimum is flat: fp32 does not find it, and fp64 takes a moment. Of many fp64 would take twice as long.
_MOST_NUMBERS_IN_FP64 = 2**23
_TOLERANCES = {np.dtype(np.float64): 1e-7, np.dtype(np.float32): 1e-4}  # of the gradient; below, fp32 has only noise
_ROUNDING = 1e-6
_NEVER = -20.0  # logit of a class without examples, of which the others' mean is 0


@dataclass(frozen=True, eq=False)
class Head:
    """A matrix ``(n_classes, n_features)`` and a bias ``(n_classes,)``, for features as the backbone gives them."""

    weights: Floats
    bias: Floats

    @classmethod
    def of(cls, layer: nn.Linear) -> "Head":
        """Return what a layer computes."""
        return cls(layer.weight.detach().cpu().double().numpy(), layer.bias.detach().cpu().double().numpy())

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``(n_rows, n_classes)`` of features ``(n_rows, n_features)``."""
        weights, bias = (torch.from_numpy(each.astype(np.float32)) for each in (self.weights, self.bias))
        said: NDArray[np.float32] = nn.functional.linear(torch.from_numpy(features), weights, bias).numpy()
        return said


@dataclass(frozen=True, eq=False)
class Examples:
    """What is learnt from.

    Attributes:
        features: ``(n_examples, n_features)``, standardised; float64 where they are few, else float32.
        labels: ``(n_examples,)``.
        weights: ``(n_examples,)``, how much each counts.
        mean: ``(n_features,)``, subtracted.
        deviation: ``(n_features,)``, divided by.
    """

    features: NDArray[np.floating]
    labels: NDArray[np.int64]
    weights: Floats
    mean: Floats
    deviation: Floats

    @classmethod
    def of(
        cls, views: Sequence[NDArray[np.float32]], rows: NDArray[np.int64], labels: NDArray[np.int64], weights: Floats
    ) -> "Examples":
        """Return the tiles at `rows`, with their labels and weights ``(n_rows,)``, in all `views`, which together count as one.

        Mean and deviation are those of scikit-learn's `StandardScaler`: of all examples, whatever they count.
        """
        n_views, n_rows, n_features = len(views), len(rows), views[0].shape[1]
        is_small = n_views * n_rows * n_features <= _MOST_NUMBERS_IN_FP64
        features = np.empty((n_views * n_rows, n_features), np.float64 if is_small else np.float32)
        for k, view in enumerate(views):
            features[k * n_rows : (k + 1) * n_rows] = view[rows]
        mean = check_numbers(features.mean(axis=0, dtype=np.float64))
        features -= mean.astype(features.dtype)
        deviation = divisors(mean, np.sqrt(np.einsum("ij,ij->j", features, features, dtype=np.float64) / len(features)))
        features /= deviation.astype(features.dtype)
        return cls(features, np.tile(labels, n_views), np.tile(weights / n_views, n_views), mean, deviation)

    def unscaled(self, weights: Floats, bias: Floats) -> Head:
        """Return the head that does to features as they are what these do to standardised ones."""
        weights = weights / self.deviation
        return Head(weights, bias - weights @ self.mean)


def check_numbers(mean: Floats) -> Floats:
    """Return the mean of each feature; raises `NonFiniteLossError` where one is not a number."""
    if not np.isfinite(mean).all():
        raise NonFiniteLossError("the features of training tiles are not all numbers; check the weights of the backbone")
    return mean


def divisors(mean: Floats, deviation: Floats) -> Floats:
    """Return by what features are divided: their deviation, or 1 where they never change but for rounding."""
    return np.where(deviation > _ROUNDING * np.abs(mean), deviation, 1.0)


def solve(examples: Examples, n_classes: int, costs: Sequence[float] = COSTS) -> Iterator[tuple[float, Head]]:
    """Yield each cost with scikit-learn's regression of the lowest ``C * sum(weight * loss) + |weights|^2 / 2``.

    Each cost begins where the last one has ended. Classes without examples are never predicted.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    tolerance = _TOLERANCES[examples.features.dtype]
    model = LogisticRegression(tol=tolerance, max_iter=_MOST_ITERATIONS, warm_start=True)
    for cost in costs:
        # The products have a column for each class only: two threads of OpenBLAS took twice as long as one (docs/features.md).
        with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
            warnings.simplefilter("ignore", ConvergenceWarning)  # validation chooses among what there is
            model.set_params(C=cost).fit(examples.features, examples.labels, sample_weight=examples.weights)
        found, intercepts = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
        if len(found) == 1:  # of two classes it keeps one row, for the second
            found, intercepts = np.concatenate([-found, found]) / 2, np.concatenate([-intercepts, intercepts]) / 2
        weights, bias = np.zeros((n_classes, found.shape[1])), np.full(n_classes, _NEVER)
        weights[model.classes_], bias[model.classes_] = found, intercepts - intercepts.mean()
        yield cost, examples.unscaled(weights, bias)
