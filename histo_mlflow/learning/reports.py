"""What learning says of itself: scores, each epoch or head, which was chosen; knows nothing of how it learns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from histo_mlflow.base.progress import in_time
from histo_mlflow.learning.compute import Compute


@dataclass(frozen=True, eq=False)
class Scored:
    """Logits of one labelled set: ``(n_tiles, n_classes)``, with labels ``(n_tiles,)`` and the loss in nats."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    loss: float


@dataclass(frozen=True, eq=False)
class EpochReport:
    """What the observer is told after each epoch, counted from 1, or of each head that was fitted on stored features.

    Attributes:
        epoch: Which one.
        epochs: Of how many.
        train_loss: Cross-entropy in nats, the mean over all tiles while learning: without smoothing or class weights.
        train_accuracy: Over the same logits.
        val: Selects.
        test: Is watched.
        is_best: Whether the validation loss is the lowest so far; of heads, of all.
        network: The one that was validated; None if it is not to be kept.
        state: `TrainingState.capture` after the epoch: `fit` goes on from it. None where learning begins anew.
        learning_rate: At the start of the epoch; None where there is none.
        tiles_per_second: While learning, without validation; None of a head.
        cost: C of the logistic regression that was solved, or None.
        seconds_left: Until all epochs are over, as the epochs so far have gone; None of a head.
        seconds_so_far: Since this training began or went on.
    """

    epoch: int
    epochs: int
    train_loss: float
    train_accuracy: float
    val: Scored
    test: Scored | None
    is_best: bool
    network: nn.Module | None
    state: Mapping[str, Any] | None
    learning_rate: float | None = None
    tiles_per_second: float | None = None
    cost: float | None = None
    seconds_left: float | None = None
    seconds_so_far: float = 0.0

    def describe_left(self, n_folds_after: int = 0) -> str:
        """Return how long it will take yet, and with as many folds after it; nothing if not known."""
        if self.seconds_left is None:
            return ""
        said = f"{in_time(self.seconds_left)} left" if self.seconds_left else ""
        if not n_folds_after:
            return said
        whole = self.seconds_left + n_folds_after * (self.seconds_so_far + self.seconds_left)
        return f"{said + ', ' if said else ''}{in_time(whole)} with the other folds"


@dataclass(frozen=True)
class FitResult:
    """Which epoch was chosen, or which head; the network then holds its weights.

    Attributes:
        best_epoch: Counted from 1.
        best_val_loss: In nats, as training saw it.
        compute: What it was trained on.
        cost: C of the logistic regression, if the head is one.
    """

    best_epoch: int
    best_val_loss: float
    compute: Compute
    cost: float | None = None

    def describe(self, n_epochs: int) -> str:
        """Return which of `n_epochs` was chosen, in words."""
        return f"epoch {self.best_epoch} of {n_epochs}" if self.cost is None else f"C={self.cost:.3g} of {n_epochs} values"
