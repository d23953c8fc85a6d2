"""Figures of merit from labels and probabilities; knows nothing of networks, files or runs.

A figure that depends on the labels alone is a function of the confusion matrix ``(..., n_classes, n_classes)``, rows true and
columns predicted; leading axes are resamples, so that one function serves the value and its bootstrap. What is not defined,
the sensitivity of a class without tiles for one, is NaN.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

N_RESAMPLES = 2000
CONFIDENCE = 0.95
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval; NaN where not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class ClassFigures:
    """One class against all others; `n` is its number of tiles."""

    name: str
    n: int
    sensitivity: Figure
    specificity: Figure
    ppv: Figure
    npv: Figure
    f1: Figure


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that is said of one scored set.

    Attributes:
        classes: Class names in the order of the matrix.
        labels: ``(n_tiles,)`` int64.
        probabilities: ``(n_tiles, n_classes)``.
        confusion: ``(n_classes, n_classes)``, rows true, columns predicted.
        overall: Figures by name, ``balanced_accuracy`` first.
        per_class: In class order.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: Floats
    confusion: Counts
    overall: Mapping[str, Figure]
    per_class: tuple[ClassFigures, ...]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Most probable class of each tile ``(n_tiles,)``."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)


def evaluate_predictions(
    labels: NDArray[np.int64], probabilities: Floats, classes: tuple[str, ...], *, seed: int = 0
) -> Evaluation:
    """Return every figure with its interval.

    Proportions (accuracy, sensitivity, specificity, PPV, NPV) have Wilson intervals; all others percentile intervals of a
    bootstrap over tiles, stratified by class. Both treat tiles as independent.
    """
    confusion = count_confusion(labels, probabilities.argmax(axis=1), len(classes))
    rng = np.random.default_rng(seed)
    resampled = _resample_confusions(confusion, rng)
    overall = {name: _bootstrapped(function, confusion, resampled) for name, function in _FROM_CONFUSION.items()}
    overall["accuracy"] = _proportion(int(np.trace(confusion)), int(confusion.sum()))
    overall |= _bootstrapped_means(_tile_losses(labels, probabilities), labels, rng)
    return Evaluation(classes, labels, probabilities, confusion, overall, _per_class(confusion, resampled, classes))


def epoch_figures(labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> dict[str, float]:
    """Return the figures that are followed from epoch to epoch, without intervals."""
    confusion = count_confusion(labels, predicted, n_classes)
    return {
        "accuracy": float(accuracy(confusion)),
        "balanced_accuracy": float(balanced_accuracy(confusion)),
        "macro_f1": float(macro_f1(confusion)),
    }


def count_confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> Counts:
    """Return the confusion matrix ``(n_classes, n_classes)``, rows true, columns predicted."""
    return np.asarray(confusion_matrix(labels, predicted, labels=np.arange(n_classes)), dtype=np.int64)


def accuracy(confusion: Counts) -> Floats:
    """Return the share of tiles that got their own class (multi-class, not one-vs-rest)."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def balanced_accuracy(confusion: Counts) -> Floats:
    """Return the mean sensitivity over the classes that have tiles."""
    return _mean_defined(_ratio(_diagonal(confusion), confusion.sum(axis=-1)))


def macro_f1(confusion: Counts) -> Floats:
    """Return the mean F1 over the classes that have tiles or predictions."""
    return _mean_defined(f1_of_classes(confusion))


def f1_of_classes(confusion: Counts) -> Floats:
    """Return F1 ``(..., n_classes)``: 2 TP / (tiles + predictions)."""
    return _ratio(2 * _diagonal(confusion), confusion.sum(axis=-1) + confusion.sum(axis=-2))


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
    return _ratio(right * n - by_chance, n**2 - by_chance)


_FROM_CONFUSION: dict[str, Callable[[Counts], Floats]] = {
    "balanced_accuracy": balanced_accuracy,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "matthews_correlation": matthews_correlation,
    "cohens_kappa": cohens_kappa,
}


def _per_class(confusion: Counts, resampled: Counts, classes: tuple[str, ...]) -> tuple[ClassFigures, ...]:
    n = int(confusion.sum())
    f1, f1_resampled = f1_of_classes(confusion), f1_of_classes(resampled)
    figures = []
    for k, name in enumerate(classes):
        hit, tiles, calls = int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
        true_negative = n - tiles - calls + hit
        figures.append(
            ClassFigures(
                name,
                tiles,
                sensitivity=_proportion(hit, tiles),
                specificity=_proportion(true_negative, n - tiles),
                ppv=_proportion(hit, calls),
                npv=_proportion(true_negative, n - calls),
                f1=_with_percentiles(float(f1[k]), f1_resampled[:, k]),
            )
        )
    return tuple(figures)


def _tile_losses(labels: NDArray[np.int64], probabilities: Floats) -> dict[str, Floats]:
    """Return what log loss (nats) and Brier score (0 to 2, Brier 1950) are the means of."""
    of_label = probabilities[np.arange(len(labels)), labels]
    target = np.eye(probabilities.shape[1])[labels]
    return {
        "log_loss": -np.log(np.maximum(of_label, np.finfo(np.float64).tiny)),
        "brier_score": ((probabilities - target) ** 2).sum(axis=1),
    }


def _resample_confusions(confusion: Counts, rng: np.random.Generator) -> Counts:
    """Return ``(N_RESAMPLES, n_classes, n_classes)``: resampling the tiles of a class is a multinomial draw of its row."""
    rows = [_multinomial(row, rng) for row in confusion]
    return np.stack(rows, axis=1)


def _multinomial(row: Counts, rng: np.random.Generator) -> Counts:
    n = int(row.sum())
    if n == 0:
        return np.zeros((N_RESAMPLES, len(row)), dtype=np.int64)
    return rng.multinomial(n, row / n, size=N_RESAMPLES)


def _bootstrapped(function: Callable[[Counts], Floats], confusion: Counts, resampled: Counts) -> Figure:
    return _with_percentiles(float(function(confusion)), function(resampled))


def _bootstrapped_means(values: dict[str, Floats], labels: NDArray[np.int64], rng: np.random.Generator) -> dict[str, Figure]:
    """Return the mean of each array ``(n_tiles,)`` with its interval, all from the same resamples."""
    stacked = np.stack(list(values.values()), axis=1)
    sums = np.zeros((N_RESAMPLES, stacked.shape[1]))
    for label in np.unique(labels):
        of_class = stacked[labels == label]
        at_once = max(1, _DRAWS_AT_ONCE // len(of_class))  # in parts, so that memory stays bounded
        for start in range(0, N_RESAMPLES, at_once):
            stop = min(start + at_once, N_RESAMPLES)
            drawn = rng.integers(len(of_class), size=(stop - start, len(of_class)))
            sums[start:stop] += of_class[drawn].sum(axis=1)
    resampled, means = sums / len(labels), stacked.mean(axis=0)
    return {name: _with_percentiles(float(means[k]), resampled[:, k]) for k, name in enumerate(values)}


def _with_percentiles(value: float, resampled: Floats) -> Figure:
    defined = resampled[np.isfinite(resampled)]
    if np.isnan(value) or len(defined) == 0:
        return Figure(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Figure(value, float(low), float(high))


def _proportion(hits: int, n: int) -> Figure:
    """Return hits / n with the interval of Wilson (1927)."""
    if n == 0:
        return Figure(np.nan, np.nan, np.nan)
    interval = binomtest(hits, n).proportion_ci(CONFIDENCE, method="wilson")
    return Figure(hits / n, float(interval.low), float(interval.high))


def _diagonal(confusion: Counts) -> Counts:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _margins(confusion: Counts) -> tuple[Floats, Floats, Floats, Floats]:
    as_float = confusion.astype(np.float64)
    return (
        as_float.sum(axis=-1),
        as_float.sum(axis=-2),
        as_float.sum(axis=(-2, -1)),
        np.trace(as_float, axis1=-2, axis2=-1),
    )


def _ratio(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> Floats:
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    undefined = np.full(np.broadcast(top, bottom).shape, np.nan)
    return np.asarray(np.divide(top, bottom, out=undefined, where=bottom != 0))


def _mean_defined(values: Floats) -> Floats:
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
