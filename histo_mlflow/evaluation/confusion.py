"""Figures that depend on the confusion matrix alone; needs nothing but NumPy, for training follows some of them.

A confusion matrix is ``(..., n_classes, n_classes)``, rows true and columns predicted; leading axes are resamples, so that one
function serves the value and its jackknife. What is not defined, the sensitivity of a class without tiles for one, is NaN.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64] | NDArray[np.float64]
Proportion = tuple[Counts, Counts]
"""Hits and of how many, ``(...)`` or, for each class against all others, ``(..., n_classes)``."""


def epoch_figures(labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> dict[str, float]:
    """Return the figures that are followed from epoch to epoch, without intervals."""
    confusion = count_confusion(labels, predicted, n_classes)
    return {
        "accuracy": float(ratio(*accuracy(confusion))),
        "balanced_accuracy": float(balanced_accuracy(confusion)),
        "macro_f1": float(macro_f1(confusion)),
    }


def count_confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix ``(n_classes, n_classes)``, rows true, columns predicted."""
    return np.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(confusion: Counts) -> Proportion:
    """Return the tiles that got their own class, and all tiles."""
    return np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1))


def sensitivity(confusion: Counts) -> Proportion:
    """Return, of each class, its tiles that were called so, and its tiles."""
    return diagonal(confusion), confusion.sum(axis=-1)


def specificity(confusion: Counts) -> Proportion:
    """Return, of each class, the tiles of others that were not called so, and the tiles of others."""
    n, tiles, calls = confusion.sum(axis=(-2, -1))[..., None], confusion.sum(axis=-1), confusion.sum(axis=-2)
    return n - tiles - calls + diagonal(confusion), n - tiles


def ppv(confusion: Counts) -> Proportion:
    """Return, of each class, the calls of it that are right, and all calls of it."""
    return sensitivity(np.swapaxes(confusion, -2, -1))  # tiles and calls change places


def npv(confusion: Counts) -> Proportion:
    """Return, of each class, the calls of others that are right in that they are not of it, and all calls of others."""
    return specificity(np.swapaxes(confusion, -2, -1))


def one_vs_rest_accuracy(confusion: Counts) -> Proportion:
    """Return, of each class, the tiles rightly said to be of it or not, and all tiles; high for rare classes."""
    right, rest = specificity(confusion)[0] + diagonal(confusion), confusion.sum(axis=(-2, -1))[..., None]
    return right, np.broadcast_to(rest, right.shape)


def balanced_accuracy(confusion: Counts) -> Floats:
    """Return the mean sensitivity over the classes that have tiles."""
    return mean_defined(ratio(*sensitivity(confusion)))


def macro_f1(confusion: Counts) -> Floats:
    """Return the mean F1 over the classes that have tiles or predictions."""
    return mean_defined(f1_of_classes(confusion))


def f1_of_classes(confusion: Counts) -> Floats:
    """Return F1 ``(..., n_classes)``: 2 TP / (tiles + predictions)."""
    return ratio(2 * diagonal(confusion), confusion.sum(axis=-1) + confusion.sum(axis=-2))


def matthews_correlation(confusion: Counts) -> Floats:
    """Return the multi-class Matthews correlation; 0 where only one class occurs or is predicted, as in scikit-learn.

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    true, predicted, n, right = _margins(confusion)
    covariance = right * n - (true * predicted).sum(axis=-1)
    variances = (n**2 - (true**2).sum(axis=-1)) * (n**2 - (predicted**2).sum(axis=-1))
    return np.where(variances > 0, covariance / np.sqrt(np.maximum(variances, 1)), 0.0)


def cohens_kappa(confusion: Counts) -> Floats:
    """Return Cohen's kappa, agreement beyond chance (Cohen 1960)."""
    true, predicted, n, right = _margins(confusion)
    by_chance = (true * predicted).sum(axis=-1)
    return ratio(right * n - by_chance, n**2 - by_chance)


def diagonal(confusion: Counts) -> Counts:
    """Return the right answers of each class ``(..., n_classes)``."""
    return np.diagonal(confusion, axis1=-2, axis2=-1)  # type: ignore[return-value]


def _margins(confusion: Counts) -> tuple[Floats, Floats, Floats, Floats]:
    as_float = confusion.astype(np.float64)
    tiles, calls = as_float.sum(axis=-1), as_float.sum(axis=-2)
    return tiles, calls, tiles.sum(axis=-1), np.trace(as_float, axis1=-2, axis2=-1)


def ratio(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> Floats:
    """Return the quotient, NaN where the denominator is 0."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    undefined = np.full(np.broadcast(top, bottom).shape, np.nan)
    return np.asarray(np.divide(top, bottom, out=undefined, where=bottom != 0))


def mean_defined(values: Floats) -> Floats:
    """Return the mean over the last axis of what is defined, NaN where nothing is."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
