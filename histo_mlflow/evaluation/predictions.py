"""What a model said of labelled tiles; knows nothing of networks, files or runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.confusion import count_confusion
from histo_mlflow.evaluation.intervals import Floats

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
