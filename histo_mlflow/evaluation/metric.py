"""What a figure of merit is: how it is computed, and what its interval needs; knows no single one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.confusion import Counts, Proportion, ratio
from histo_mlflow.evaluation.drawn import Drawn
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.evaluation.predictions import Predictions

Bools = NDArray[np.bool_]


def wrong(predictions: Predictions, _: int) -> Bools:
    """Return all tiles that got another class; of these and the next three ``(n_tiles,)``."""
    return predictions.is_wrong


def missed(predictions: Predictions, k: int) -> Bools:
    """Return the tiles of class `k` that were called something else."""
    return np.asarray(predictions.is_wrong & (predictions.labels == k))


def falsely_called(predictions: Predictions, k: int) -> Bools:
    """Return the tiles of other classes that were called `k`."""
    return np.asarray(predictions.is_wrong & (predictions.predicted == k))


def confused(predictions: Predictions, k: int) -> Bools:
    """Return both."""
    return missed(predictions, k) | falsely_called(predictions, k)


@dataclass(frozen=True)
class Metric:
    """One figure of merit, and what its interval is made from.

    Attributes:
        name: In files and in the tracking store.
        words: On pages, in tables and on the model card.
        compute: From `n` resamples to ``(n,)``, or to ``(n, n_classes)`` if it is one of each class.
        proportion: From one confusion matrix to hits and of how many, if it is a proportion.
        fewest_tiles: That an interval needs; of a proportion, how many it must be of.
        errors: Tiles that are wrong in a way that the figure of class `k` sees, ``(n_tiles,)``.
        fewest_errors: Of these, that an interval over tiles needs.
        fewest_groups: With such an error, that an interval over groups needs.
        tiles_per_freedom: Over tiles, Student's t has at least a degree of freedom for so many.
        freedom_by_groups: Share of the jackknife's degrees of freedom that holds over groups.
        of_confusion: From confusion matrices ``(n, n_classes, n_classes)``, if it depends on nothing else.
        lowest: The worst value of one that has 1 as its best; NaN of one that has no upper end.
        has_interval: False where no method is known whose interval holds the truth as often as it says.
        is_lower_better: Whether less is better.
        is_on_page: False if only files hold it.
    """

    name: str
    words: str
    compute: Callable[[Drawn], Floats]
    proportion: Callable[[Counts], Proportion] | None = None
    fewest_tiles: int = 0
    errors: Callable[[Predictions, int], Bools] = wrong
    fewest_errors: int = 0
    fewest_groups: int = 1
    tiles_per_freedom: float = math.inf
    freedom_by_groups: float = 1.0
    of_confusion: Callable[[Counts], Floats] | None = None
    lowest: float = 0.0
    has_interval: bool = True
    is_lower_better: bool = False
    is_on_page: bool = True


def share(name: str, words: str, proportion: Callable[[Counts], Proportion], **needs: Any) -> Metric:
    """Make a proportion; `needs` are attributes of a metric, here and below."""

    def compute(drawn: Drawn) -> Floats:
        return ratio(*proportion(drawn.confusion))

    return Metric(name, words, compute, proportion, **needs)


def counted(name: str, words: str, function: Callable[[Counts], Floats], **needs: Any) -> Metric:
    """Make one that depends on the confusion matrix alone."""
    return Metric(name, words, lambda drawn: function(drawn.confusion), of_confusion=function, **needs)


def ranked(name: str, words: str, compute: Callable[[Drawn], Floats], **needs: Any) -> Metric:
    """Make one that depends on the order of scores."""
    return Metric(name, words, compute, fewest_tiles=200, **needs)


def loss(name: str, words: str, compute: Callable[[Drawn], Floats], **needs: Any) -> Metric:
    """Make one that has no upper end."""
    return Metric(name, words, compute, lowest=math.nan, is_lower_better=True, **needs)
