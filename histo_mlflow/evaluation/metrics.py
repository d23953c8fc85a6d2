"""Figures of merit from labels and probabilities; knows nothing of networks, files or runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation import confusion as of_confusion
from histo_mlflow.evaluation.confusion import Counts, count_confusion
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.evaluation.intervals import Figure, Floats, Resampling, Weights, wilson, with_percentiles
from histo_mlflow.evaluation.ranking import Ranked, auroc_and_precision, calibration_error, risk_and_coverage

TARGET_ACCURACY = 0.99
_SUM_TOLERANCE = 1e-3  # of probabilities that a csv has rounded


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said of a labelled set.

    Attributes:
        labels: ``(n_tiles,)`` int64, positions in `classes`.
        probabilities: ``(n_tiles, n_classes)``, rows summing to 1.
        classes: Class names in the order of the columns.
        groups: ``(n_tiles,)`` ids of patient or slide, or None.

    Raises:
        RequestError: These are not labels and probabilities of the same tiles.
    """

    labels: NDArray[np.int64]
    probabilities: Floats
    classes: tuple[str, ...]
    groups: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        labels, probabilities, n_classes = self.labels, self.probabilities, len(self.classes)
        if probabilities.ndim != 2 or probabilities.shape[1] != n_classes:
            raise RequestError(f"probabilities have shape {probabilities.shape}; (n_tiles, {n_classes}) is needed")
        if len(labels) == 0:
            raise RequestError("there are no tiles to evaluate; check the labelled set")
        if labels.shape != (len(probabilities),):
            raise RequestError(f"there are labels of shape {labels.shape} for {len(probabilities)} rows of probabilities")
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= n_classes:
            raise RequestError(f"labels must be integers from 0 to {n_classes - 1}, in the order {' '.join(self.classes)}")
        if self.groups is not None and len(self.groups) != len(labels):
            raise RequestError(f"there are {len(self.groups)} groups for {len(labels)} tiles; one for each tile is needed")
        if not np.isfinite(probabilities).all():
            row = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
            raise RequestError(
                f"the probabilities of tile {row} are not all numbers; the model has diverged or the file is damaged"
            )
        wrong = np.flatnonzero((np.abs(probabilities.sum(axis=1) - 1) > _SUM_TOLERANCE) | (probabilities.min(axis=1) < 0))
        if len(wrong):
            raise RequestError(
                f"the probabilities of tile {wrong[0]} sum to {probabilities[wrong[0]].sum():.4g}, or one is negative; "
                "they must be a distribution over the classes: apply softmax to logits first"
            )

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Most probable class of each tile ``(n_tiles,)``; the first of equals."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def confidence(self) -> Floats:
        """Probability of the predicted class ``(n_tiles,)``."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float64)

    @cached_property
    def is_wrong(self) -> NDArray[np.bool_]:
        """Whether the predicted class is not the labelled one ``(n_tiles,)``."""
        return np.asarray(self.predicted != self.labels)

    @cached_property
    def losses(self) -> Floats:
        """Negative log probability of the labelled class ``(n_tiles,)``, in nats."""
        of_label = self.probabilities[np.arange(len(self.labels)), self.labels]
        return np.asarray(-np.log(np.maximum(of_label, np.finfo(np.float64).tiny)))

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """``(n_classes, n_classes)``, rows true, columns predicted."""
        return count_confusion(self.labels, self.predicted, len(self.classes))


def match_classes(probabilities: Floats, given: Sequence[str], classes: tuple[str, ...]) -> Floats:
    """Return the columns of `probabilities`, named by `given`, in the order of `classes`; matched by name, never by position.

    Raises:
        RequestError: The names are not the same.
    """
    if sorted(given) != sorted(classes):
        raise RequestError(
            f"the probabilities are of the classes {' '.join(given)}, the labels of {' '.join(classes)}; rename or drop "
            "until both have the same names"
        )
    return probabilities[:, [list(given).index(name) for name in classes]]


@dataclass(frozen=True, eq=False)
class ClassFigures:
    """One class against all others: its number of tiles and its figures by name."""

    name: str
    n: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that is said of one scored set: figures by name, ``balanced_accuracy`` first, and of each class in order."""

    predictions: Predictions
    overall: Mapping[str, Figure]
    per_class: tuple[ClassFigures, ...]
    intervals: str


def evaluate_predictions(
    predictions: Predictions, *, costs: Floats | None = None, seed: int = 0, n_resamples: int | None = None
) -> Evaluation:
    """Return every figure with its interval.

    Without groups, proportions (accuracy and, of each class, sensitivity, specificity, PPV, NPV and one-vs-rest accuracy) have
    Wilson intervals and take tiles as independent; all other figures have percentiles of a bootstrap over tiles, stratified by
    class. With groups every interval is of a bootstrap over whole groups.

    Args:
        predictions: Labels and probabilities.
        costs: ``(n_classes, n_classes)``, of calling a tile of the row's class the column's; None for the default.
        seed: Of the bootstrap.
        n_resamples: None for `intervals.N_RESAMPLES`.
    """
    statistics = Figures(predictions, costs if costs is not None else default_costs(predictions.classes))
    resampling = Resampling(predictions.labels, predictions.groups, seed)
    if n_resamples is not None:
        resampling = Resampling(predictions.labels, predictions.groups, seed, n_resamples)
    values = {name: value[0] for name, value in statistics(np.ones((1, len(predictions.labels)), np.float32)).items()}
    resampled = resampling.bootstrap(statistics)
    is_grouped = predictions.groups is not None

    overall = {name: with_percentiles(float(value), resampled[name]) for name, value in values.items() if value.ndim == 0}
    if not is_grouped:
        overall["accuracy"] = wilson(int(np.trace(predictions.confusion)), len(predictions.labels))
    per_class = []
    for k, (name, n) in enumerate(zip(predictions.classes, predictions.confusion.sum(axis=1), strict=True)):
        figures = {
            figure: with_percentiles(float(value[k]), resampled[figure][:, k])
            for figure, value in values.items()
            if value.ndim == 1
        }
        if not is_grouped:
            figures |= {figure: wilson(*pair) for figure, pair in _proportions(predictions.confusion, k).items()}
        per_class.append(ClassFigures(name, int(n), figures))
    words = (
        f"{'All figures' if is_grouped else 'Proportions: Wilson. All other figures'}: percentiles of {resampling.describe()}"
    )
    return Evaluation(predictions, overall, tuple(per_class), words)


class Figures:
    """All figures of a set as a function of how often each tile counts: ``(n, n_tiles)`` to ``(n,)`` or ``(n, n_classes)``."""

    def __init__(self, predictions: Predictions, costs: Floats) -> None:
        n_classes = len(predictions.classes)
        if costs.shape != (n_classes, n_classes):
            raise RequestError(f"the costs have shape {costs.shape}; ({n_classes}, {n_classes}) is needed")
        self._n_classes, self._costs = n_classes, costs
        labels, probabilities = predictions.labels, predictions.probabilities
        cell = labels * n_classes + predictions.predicted
        self._by_cell = np.argsort(cell, kind="stable")
        self._cells, self._cell_starts = np.unique(cell[self._by_cell], return_index=True)
        target = np.eye(n_classes)[labels]
        self._per_tile = np.stack([predictions.losses, ((probabilities - target) ** 2).sum(axis=1)], axis=1)
        self._of_class = [Ranked.of(probabilities[:, k], labels == k) for k in range(n_classes)]
        self._confidence = Ranked.of(predictions.confidence, predictions.is_wrong)
        self._top_label = Ranked.of(predictions.confidence, ~predictions.is_wrong)

    def __call__(self, counts: Weights) -> dict[str, Floats]:
        """Return the figures of each row of `counts`."""
        confusion = self._confusions(counts)
        n = counts.sum(axis=1, dtype=np.float64)
        auroc, auprc = (
            np.stack(part, axis=1) for part in zip(*(auroc_and_precision(r, counts) for r in self._of_class), strict=True)
        )
        log_loss, brier = (counts @ self._per_tile).T / n
        area, coverage = risk_and_coverage(self._confidence, counts, accuracy=TARGET_ACCURACY)
        classwise = np.stack([calibration_error(ranked, counts) for ranked in self._of_class], axis=1)
        one_vs_rest = of_confusion.one_vs_rest_accuracy(confusion)
        return {
            "balanced_accuracy": of_confusion.balanced_accuracy(confusion),
            "accuracy": of_confusion.accuracy(confusion),
            "macro_f1": of_confusion.macro_f1(confusion),
            "matthews_correlation": of_confusion.matthews_correlation(confusion),
            "cohens_kappa": of_confusion.cohens_kappa(confusion),
            "macro_auroc": of_confusion.mean_defined(auroc),
            "macro_auprc": of_confusion.mean_defined(auprc),
            "log_loss": log_loss,
            "brier_score": brier,
            "expected_cost": (confusion * self._costs).sum(axis=(-2, -1)) / n,
            "ece_top_label": calibration_error(self._top_label, counts),
            "ece_classwise": classwise.mean(axis=1),
            "aurc": area,
            "coverage_at_99_accuracy": coverage,
            "mean_one_vs_rest_accuracy": one_vs_rest.mean(axis=1),
            **{name: function(confusion) for name, function in of_confusion.PER_CLASS.items()},
            "auroc": auroc,
            "auprc": auprc,
        }

    def _confusions(self, counts: Weights) -> Floats:
        matrix = np.zeros((len(counts), self._n_classes**2))
        matrix[:, self._cells] = np.add.reduceat(counts[:, self._by_cell], self._cell_starts, axis=1)
        return matrix.reshape(-1, self._n_classes, self._n_classes)


def _proportions(confusion: Counts, k: int) -> dict[str, tuple[int, int]]:
    """Return (hits, of how many) for the figures of class `k` that are proportions."""
    n, hit, tiles, calls = int(confusion.sum()), int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
    rest_right = n - tiles - calls + hit
    return {
        "sensitivity": (hit, tiles),
        "specificity": (rest_right, n - tiles),
        "ppv": (hit, calls),
        "npv": (rest_right, n - calls),
        "one_vs_rest_accuracy": (hit + rest_right, n),
    }
