"""What metrics are computed from: the predictions of a set, each tile counted as often as it was drawn.

The work that all resamples share, sorting above all, is done once in `Prepared`; `Drawn` computes the rest when asked.
"""

from functools import cached_property

import numpy as np

from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.intervals import Floats, Weights
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.ranking import Ranked, auroc_and_precision, calibration_error, risk_and_coverage

TARGET_ACCURACY = 0.99


class Prepared:
    """Predictions, sorted once; `costs` are ``(n_classes, n_classes)``."""

    def __init__(self, predictions: Predictions, costs: Floats) -> None:
        n_classes = len(predictions.classes)
        if costs.shape != (n_classes, n_classes):
            raise RequestError(f"the costs have shape {costs.shape}; ({n_classes}, {n_classes}) is needed")
        self.n_classes, self.costs = n_classes, costs
        labels, probabilities = predictions.labels, predictions.probabilities
        cell = labels * n_classes + predictions.predicted
        self.by_cell = np.argsort(cell, kind="stable")
        self.cells, self.cell_starts = np.unique(cell[self.by_cell], return_index=True)
        squares = ((probabilities - np.eye(n_classes)[labels]) ** 2).sum(axis=1)
        self.per_tile = np.stack([predictions.losses, squares], axis=1)
        self.of_class = [Ranked.of(probabilities[:, k], labels == k) for k in range(n_classes)]
        self.wrong = Ranked.of(predictions.confidence, predictions.is_wrong)
        self.right = Ranked.of(predictions.confidence, ~predictions.is_wrong)


class Drawn:
    """Resamples of a set, each given by how often it has each tile: ``(n, n_tiles)``, ones for the set itself.

    Everything it gives has one row for each resample.
    """

    def __init__(self, prepared: Prepared, counts: Weights) -> None:
        self._prepared, self._counts = prepared, counts

    @cached_property
    def n_tiles(self) -> Floats:
        """``(n,)``."""
        return np.asarray(self._counts.sum(axis=1, dtype=np.float64))

    @cached_property
    def confusion(self) -> Floats:
        """``(n, n_classes, n_classes)``, rows true, columns predicted."""
        prepared, counts = self._prepared, self._counts
        matrix = np.zeros((len(counts), prepared.n_classes**2))
        matrix[:, prepared.cells] = np.add.reduceat(counts[:, prepared.by_cell], prepared.cell_starts, axis=1)
        return matrix.reshape(-1, prepared.n_classes, prepared.n_classes)

    @property
    def cost(self) -> Floats:
        """Mean cost of a tile ``(n,)``."""
        return np.asarray((self.confusion * self._prepared.costs).sum(axis=(-2, -1)) / self.n_tiles)

    @cached_property
    def loss_and_squares(self) -> Floats:
        """Mean negative log probability of the label, mean squared distance from the truth: ``(2, n)``."""
        return np.asarray((self._counts @ self._prepared.per_tile).T / self.n_tiles)

    @cached_property
    def auroc_and_precision(self) -> tuple[Floats, Floats]:
        """Of each class against all others, both ``(n, n_classes)``."""
        auroc, precision = zip(*(auroc_and_precision(each, self._counts) for each in self._prepared.of_class), strict=True)
        return np.stack(auroc, axis=1), np.stack(precision, axis=1)

    @cached_property
    def risk_and_coverage(self) -> tuple[Floats, Floats]:
        """Area under the risk-coverage curve, and coverage at `TARGET_ACCURACY`: both ``(n,)``."""
        return risk_and_coverage(self._prepared.wrong, self._counts, accuracy=TARGET_ACCURACY)

    @property
    def calibration_error(self) -> Floats:
        """Of the predicted class ``(n,)``."""
        return calibration_error(self._prepared.right, self._counts)

    @property
    def calibration_errors(self) -> Floats:
        """Of each class ``(n, n_classes)``."""
        return np.stack([calibration_error(each, self._counts) for each in self._prepared.of_class], axis=1)
