"""Figures of merit from labels and probabilities; knows nothing of networks, files or runs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.confusion import (
    Counts,
    Floats,
    accuracy,
    balanced_accuracy,
    cohens_kappa,
    count_confusion,
    f1_of_classes,
    macro_f1,
    matthews_correlation,
)

N_RESAMPLES = 2000
CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
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
    share, spread = hits / n, _Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Figure(share, max(0.0, middle - reach), min(1.0, middle + reach))
