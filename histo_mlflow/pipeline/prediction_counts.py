"""What was predicted in all: tiles of each class, how sure the model is, of how many it says nothing."""

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.console import format_table


class PredictionCounts:
    """Counts predictions as they are made; holds none of them.

    Attributes:
        classes: Names, in the order of the probabilities.
        abstain_below: Probability below which the model abstains, or None where it may not.
    """

    def __init__(self, classes: tuple[str, ...], abstain_below: float | None) -> None:
        self.classes, self.abstain_below = classes, abstain_below
        self.by_class = np.zeros(len(classes), dtype=np.int64)
        self.n_abstained = 0
        self._confidence = 0.0

    def add(self, probabilities: NDArray[np.floating]) -> None:
        """Count tiles by their probabilities ``(n_tiles, n_classes)``."""
        confidence = probabilities.max(axis=1)
        self.by_class += np.bincount(probabilities.argmax(axis=1), minlength=len(self.classes))
        self._confidence += float(confidence.sum(dtype=np.float64))
        if self.abstain_below is not None:
            self.n_abstained += int((confidence < self.abstain_below).sum())

    @property
    def n_tiles(self) -> int:
        """How many were counted."""
        return int(self.by_class.sum())

    @property
    def mean_confidence(self) -> float:
        """Mean of the highest probability of each tile; NaN of no tiles."""
        return self._confidence / self.n_tiles if self.n_tiles else float("nan")

    def describe(self) -> str:
        """Return counts by class, the most frequent first, and the rest in a line."""
        if not self.n_tiles:
            return "no image was predicted"
        order = np.argsort(-self.by_class, kind="stable")
        rows = [[self.classes[k], str(self.by_class[k]), f"{100 * self.by_class[k] / self.n_tiles:.1f} %"] for k in order]
        said = f"mean confidence {self.mean_confidence:.3f}"
        if self.abstain_below is not None:
            share = 100 * self.n_abstained / self.n_tiles
            said += f"; abstained from {self.n_abstained} ({share:.1f} %), whose confidence is below {self.abstain_below:.3f}"
        return f"{format_table(['class', 'tiles', 'share'], rows)}\n{said}"
