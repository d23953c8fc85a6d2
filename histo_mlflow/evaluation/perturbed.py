"""What one change of the tiles does to the predicted classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.confusion import balanced_accuracy, count_confusion
from histo_mlflow.evaluation.intervals import Estimate, wilson

SYMMETRY = "symmetry"


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Labels and predicted classes ``(n_tiles,)`` before and after a change."""

    kind: str
    strength: str
    labels: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]

    @property
    def changed(self) -> Estimate:
        """Share of tiles whose class changes, with its Wilson interval."""
        return wilson(int((self.before != self.after).sum()), len(self.labels))

    @property
    def accuracy(self) -> float:
        """Share of tiles that still get their class."""
        return float((self.after == self.labels).mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean sensitivity after the change."""
        n_classes = int(max(self.labels.max(), self.after.max())) + 1
        return float(balanced_accuracy(count_confusion(self.labels, self.after, n_classes)))


def changed_by_any(found: Sequence[Perturbed], kind: str) -> Estimate:
    """Return the share of tiles whose class changes under at least one change of a kind, with its Wilson interval."""
    is_changed = np.any([each.before != each.after for each in found if each.kind == kind], axis=0)
    return wilson(int(is_changed.sum()), len(is_changed))
