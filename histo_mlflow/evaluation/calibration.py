"""Whether a probability of 0.9 is right nine times in ten, and the temperature that corrects it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.intervals import Estimate, Floats, wilson
from histo_mlflow.evaluation.ranking import N_BINS, bin_of

_LOWEST, _HIGHEST = 0.05, 20.0


@dataclass(frozen=True)
class Calibration:
    """What validation tiles say of a model's probabilities; without arguments, that nothing is known.

    Attributes:
        temperature: That makes them fit best, or None.
        is_applied: Whether the model divides its logits by it.
        abstain_below: Probability below which the model should abstain, or None if no threshold reaches the accuracy aimed at.
    """

    temperature: float | None = None
    is_applied: bool = False
    abstain_below: float | None = None

    @property
    def divisor(self) -> float:
        """What the model divides its logits by."""
        return self.temperature if self.temperature is not None and self.is_applied else 1.0


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the temperature with the lowest log loss of ``softmax(logits / temperature)``; above 1 for overconfident logits.

    Source: Guo et al. 2017, "On calibration of modern neural networks". The loss is convex in 1 / temperature. Where
    every tile is right it has no minimum, and 1 is returned: nothing is known of how wrong the model can be.
    """
    if (logits.argmax(axis=1) == labels).all():
        return 1.0
    from scipy.optimize import minimize_scalar

    exact = logits.astype(np.float64)
    found = minimize_scalar(
        lambda inverse: log_loss_of(exact * inverse, labels), bounds=(1 / _HIGHEST, 1 / _LOWEST), method="bounded",
        options={"xatol": 1e-6},
    )  # fmt: skip
    return float(1 / found.x)


def scale(probabilities: Floats, temperature: float) -> Floats:
    """Return ``softmax(log(probabilities) / temperature)``: what the logits behind them would give; labels stay the same."""
    from scipy.special import softmax

    return np.asarray(softmax(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) / temperature, axis=1))


def log_loss_of(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Return the mean negative log likelihood of ``softmax(logits)`` in nats."""
    from scipy.special import log_softmax

    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


@dataclass(frozen=True)
class Bin:
    """Tiles of similar score: how many, their mean score, and the share of them that are right, with its Wilson interval."""

    n: int
    mean_score: float
    share: Estimate


def reliability(scores: Floats, is_right: NDArray[np.bool_]) -> list[Bin]:
    """Return the bins of a reliability diagram that hold tiles, from low to high scores ``(n_tiles,)``."""
    bins, found = bin_of(scores), []
    for k in range(N_BINS):
        inside = bins == k
        n = int(inside.sum())
        if n:
            found.append(Bin(n, float(scores[inside].mean()), wilson(int(is_right[inside].sum()), n)))
    return found
