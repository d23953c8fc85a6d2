"""A limit for a candidate's mean gain that holds at any number of tiles or patients; knows nothing of predictions.

What was seen is weighed with random weights (Rubin 1981, "The Bayesian bootstrap"), together with one unit that was not drawn
and is as bad as a unit may be. For equal weights this is the bound of Gaffke 2005 ("Three test statistics for a nonparametric
one-sided hypothesis on the mean of a nonnegative variable"; Learned-Miller and Thomas 2020, arXiv 1905.06208), and for
counts of hits the exact limit of Clopper and Pearson 1934. Where no unit differs, it is the rule of three.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.intervals import Floats

LEAST_WORST_LOSS = math.log(1000)
"""Nats that a tile which was not drawn may cost at least: its label was given a probability of 0.001."""
LEAST_LOST_SHARE = 0.35
"""Share of its tiles that a patient who was not drawn may lose at least, however well those fared that were."""
LEAST_LOSS_OF_PATIENT = LEAST_LOST_SHARE * math.log(20)
"""Nats that such a patient may cost at least: the labels of these tiles were given a probability of 0.05."""

_BEYOND_WORST_PATIENT = 1.5  # simulated (benchmarks/gate_error.py): the worst patient seen is too mild a guess of the worst
_HALVINGS = 50


@dataclass(frozen=True, eq=False)
class Gains:
    """Gains of the units that were seen and, last, of one that was not; leading axes are studies.

    Attributes:
        values: ``(..., n_values)``, candidate minus incumbent.
        weights: ``(..., n_values)``, how much a unit counts in the mean.
        counts: ``(..., n_values)``, units of this value and weight.
    """

    values: Floats
    weights: Floats
    counts: Floats

    def p_value(self, margin: float) -> Floats:
        """Return how likely such gains are, ``(...)``, of a candidate that is truly worse by `margin`, or an upper bound."""
        return probability_below_zero(self.weights * (self.values + margin), self.counts)

    def lower(self, alpha: float) -> float:
        """Return the lower limit of the mean gain of one study, at a one-sided error of `alpha`."""
        from scipy.optimize import brentq

        seen = self.values[self.counts > 0]
        lowest, highest = float(seen.min()), float(seen.max())
        if lowest == highest:
            return lowest
        return float(brentq(lambda limit: float(self.p_value(-limit)) - alpha, lowest, highest, xtol=1e-7))


def gains_in_accuracy(gained: NDArray[Any], lost: NDArray[Any], tiles: NDArray[Any]) -> Gains:
    """Return the gains in balanced accuracy with tiles as units; the unseen one is a lost tile of the rarest class.

    Args:
        gained: ``(..., n_classes)``, tiles that only the candidate gets right.
        lost: The same, only the incumbent.
        tiles: ``(n_classes,)``, of each class, none of them 0.
    """
    n_classes = len(tiles)
    weight = tiles.sum() / (n_classes * tiles)
    values = np.concatenate([np.repeat([1.0, 0.0, -1.0], n_classes), [-1.0]])
    one = np.ones((*gained.shape[:-1], 1))
    counts = np.concatenate([gained, tiles - gained - lost, lost, one], axis=-1)
    return Gains(values, np.concatenate([np.tile(weight, 3), [weight.max()]]), counts)


def gains_of_units(values: Floats, unseen: Floats | float, weights: Floats | None = None) -> Gains:
    """Return the gains of units one by one; the unseen one is as large as the root mean square of those that were seen.

    Where sizes differ, one of mean size lets too many candidates pass, and one as large as the unit that a tile has in mean
    hardly any, however good (simulated, benchmarks/gate_error.py).

    Args:
        values: ``(..., n_units)``.
        unseen: ``(...)``, of the one that was not drawn.
        weights: ``(n_units,)``, 1 on average; None if all are alike.
    """
    weights = np.ones(values.shape[-1]) if weights is None else weights
    last = np.broadcast_to(np.asarray(unseen, np.float64)[..., None], (*values.shape[:-1], 1))
    values = np.concatenate([values, last], axis=-1)
    return Gains(values, np.append(weights, np.sqrt((weights**2).mean())), np.ones(values.shape))


def gains_of_patients(values: Floats, weights: Floats, least_worst: float, most: float = math.inf) -> Gains:
    """Return the gains of patients; one who was not drawn may be half as bad again as the worst who was.

    Args:
        values: ``(..., n_patients)``, mean over the tiles of each.
        weights: ``(n_patients,)``, how much each counts, 1 on average.
        least_worst: What the unseen one loses at least.
        most: What a patient can lose at most.
    """
    worst = np.clip(-_BEYOND_WORST_PATIENT * values.min(axis=-1), least_worst, most)
    return gains_of_units(values, -worst, weights)


def probability_below_zero(terms: Floats, counts: Floats) -> Floats:
    """Return the probability that a sum of `terms`, each times a gamma variable of shape `counts`, is below zero.

    By the saddlepoint approximation in the form of Barndorff-Nielsen 1986 ("Inference on full or partial parameters based on
    the standardized signed log likelihood ratio"), which is within 2 % of the exact value for one unit and nearer for more.

    Args:
        terms: ``(..., n_terms)``.
        counts: The same shape, or of one that fits; a count of 0 leaves its term out.
    """
    from scipy.special import ndtr

    terms, counts = np.broadcast_arrays(np.where(counts > 0, terms, 0.0), counts)
    low, high = terms.min(axis=-1), terms.max(axis=-1)
    found = np.where(high > 0, 0.0, 1.0)
    is_open = (low < 0) & (high > 0)
    if not is_open.any():
        return found
    terms, counts = terms[is_open], counts[is_open]
    left, right = 1 / low[is_open], 1 / high[is_open]
    for _ in range(_HALVINGS):
        at = (left + right) / 2
        slope = (counts * terms / (1 - at[:, None] * terms)).sum(axis=-1)
        left, right = np.where(slope < 0, at, left), np.where(slope < 0, right, at)
    shrunk = 1 - at[:, None] * terms
    root = np.sign(at) * np.sqrt(np.maximum(2 * (counts * np.log(shrunk)).sum(axis=-1), 0))
    wald = at * np.sqrt((counts * (terms / shrunk) ** 2).sum(axis=-1))
    is_middle = np.abs(root) < 1e-3  # where the correction is 0 / 0, and nothing is decided
    safe = np.where(is_middle, 1.0, root)
    found[is_open] = ndtr(np.where(is_middle, root, root + np.log(np.where(is_middle, 1.0, wald / safe)) / safe))
    return found
