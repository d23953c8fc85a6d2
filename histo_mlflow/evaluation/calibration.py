"""Whether a probability of 0.9 is right nine times in ten, and the temperature that corrects it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.intervals import Estimate, Floats, Units, wilson
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.ranking import N_BINS, bin_of

_LOWEST, _HIGHEST = 0.05, 20.0
_N_PARTS = 5  # of cross-validation over the validation tiles


@dataclass(frozen=True)
class Calibration:
    """What validation tiles say of a model's probabilities; without arguments, that nothing is known.

    Attributes:
        temperature: That lowers the loss of tiles that it was not fitted on, 1 if none does; None where it is not known.
        is_applied: Whether the model divides its logits by it.
        abstain_below: Probability below which the model should abstain, or None if none is known to reach its accuracy.
    """

    temperature: float | None = None
    is_applied: bool = False
    abstain_below: float | None = None

    @property
    def divisor(self) -> float:
        """What the model divides its logits by."""
        return self.temperature if self.temperature is not None and self.is_applied else 1.0


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64], groups: NDArray[np.str_] | None = None) -> float:
    """Return a temperature that lowers the log loss of ``softmax(logits / temperature)`` on tiles it was not fitted on, else 1.

    Above 1 for overconfident logits. The temperature of lowest loss (Guo et al. 2017, "On calibration of modern neural
    networks"; convex in 1 / temperature) is raised to a power between 0 and 1, which shrinks it towards 1: the power with the
    lowest loss in cross-validation over whole `groups` (single tiles without them), if it gains at least a standard error of
    the gain. Few tiles therefore give 1, and so do tiles that are all called rightly: how wrong the model can be is not known.
    """
    unit = Units(len(labels), groups).of_tile
    part = _parts(unit)
    exact, is_right = logits.astype(np.float64), logits.argmax(axis=1) == labels
    if any(is_right[part != k].all() for k in range(_N_PARTS)):
        return 1.0
    powers = np.linspace(0, 1, 5)
    held_out = np.zeros((len(powers), len(labels)))
    for k in range(_N_PARTS):
        fitted = _sharpness(exact[part != k], labels[part != k])
        for losses, power in zip(held_out, powers, strict=True):
            losses[part == k] = _losses_of(exact[part == k] * fitted**power, labels[part == k])
    best = int(held_out.mean(axis=1).argmin())
    gain = np.bincount(unit, weights=held_out[0] - held_out[best])
    if not gain.sum() > gain.std(ddof=1) * np.sqrt(len(gain)):
        return 1.0
    return float(_sharpness(exact, labels) ** -powers[best])


def cross_fit(predictions: Predictions) -> Predictions:
    """Return `predictions` scaled, each tile by a temperature that was fitted on others; groups are kept together."""
    labels, groups = predictions.labels, predictions.groups
    part, probabilities = _parts(Units(len(labels), groups).of_tile), predictions.probabilities.copy()
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    for k in range(_N_PARTS):
        others = part != k
        temperature = fit_temperature(logits[others], labels[others], None if groups is None else groups[others])
        probabilities[part == k] = scale(probabilities[part == k], temperature)
    return replace(predictions, probabilities=probabilities)


def _parts(unit: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the part, of `_N_PARTS`, that each tile belongs to ``(n_tiles,)``; of few units some parts stay empty."""
    return (np.random.default_rng(0).permutation(unit.max(initial=0) + 1) % _N_PARTS)[unit]


def _sharpness(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Return the factor of the logits with the lowest log loss: 1 / temperature."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda factor: log_loss_of(logits * factor, labels), bounds=(1 / _HIGHEST, 1 / _LOWEST), method="bounded",
        options={"xatol": 1e-6},
    )  # fmt: skip
    return float(found.x)


def scale(probabilities: Floats, temperature: float) -> Floats:
    """Return ``softmax(log(probabilities) / temperature)``: what the logits behind them would give; labels stay the same."""
    from scipy.special import softmax

    return np.asarray(softmax(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) / temperature, axis=1))


def log_loss_of(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Return the mean negative log likelihood of ``softmax(logits)`` in nats."""
    return float(_losses_of(logits, labels).mean())


def _losses_of(logits: Floats, labels: NDArray[np.int64]) -> Floats:
    from scipy.special import log_softmax

    return np.asarray(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels])


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
