"""Ends of 95 % intervals, each on the scale on which the figure's error is nearest to normal."""

import math
from collections.abc import Callable

import numpy as np

from histo_mlflow.evaluation.confusion import Counts, Floats
from histo_mlflow.evaluation.intervals import Spread, score_limits

Limits = tuple[float, float]
NO_LIMITS: Limits = (math.nan, math.nan)

_ERRORS_ASSUMED = 4


def wilson_limits(value: float, lowest: float, n_effective: float, quantile: float) -> Limits:
    """Return Wilson's limits of a figure from `lowest` to 1 that tells as much as `n_effective` independent tiles would.

    Source: Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", with Wilson's limits in place of the exact ones.
    """
    if not n_effective > 0:
        return NO_LIMITS
    low, high = score_limits((value - lowest) / (1 - lowest), n_effective, quantile)
    return lowest + low * (1 - lowest), lowest + high * (1 - lowest)


def logit_limits(value: float, spread: Spread) -> Limits:
    """Return limits of a figure between 0 and 1 that are symmetric in its log odds."""
    if not (0 < value < 1 and spread.variance > 0):
        return NO_LIMITS
    reach = spread.quantile * math.sqrt(spread.variance) / (value * (1 - value))
    odds = math.log(value / (1 - value))
    return _expit(odds - reach), _expit(odds + reach)


def log_limits(value: float, spread: Spread) -> Limits:
    """Return limits of a positive figure that are symmetric in its logarithm."""
    if not (value > 0 and spread.variance > 0):
        return NO_LIMITS
    factor = math.exp(min(spread.quantile * math.sqrt(spread.variance) / value, 700.0))
    return value / factor, value * factor


def plain_limits(value: float, spread: Spread) -> Limits:
    """Return limits of a figure of any sign, a difference for one, that are symmetric about it."""
    if not spread.variance > 0:
        return NO_LIMITS
    reach = spread.quantile * math.sqrt(spread.variance)
    return value - reach, value + reach


def effective_number(value: float, lowest: float, spread: Spread) -> float:
    """Return of how many independent tiles a proportion of that value would have that variance; NaN where it can't be told."""
    share, variance = (value - lowest) / (1 - lowest), spread.variance / (1 - lowest) ** 2
    return share * (1 - share) / variance if variance > 0 and 0 < share < 1 else math.nan


def effective_number_of_tiles(
    of_confusion: Callable[[Counts], Floats], column: int, confusion: Counts, lowest: float, observed: float
) -> float:
    """Return `effective_number` for independent tiles, steadied where there are few errors or none.

    An error costs more in a rare class. What one costs is computed for a model without errors: if errors strike at random, a
    figure of value v has the variance (1 - v) x mean square cost / mean cost (a compound Poisson sum). This counts as much as
    four errors, and the jackknife's `observed` number as much as the errors that there are.
    """
    tiles = confusion.sum(axis=1).astype(np.float64)
    classes = np.arange(len(tiles))
    true, called = (axis.ravel() for axis in np.meshgrid(classes, classes, indexing="ij"))
    is_error = (true != called) & (tiles[true] > 0)
    true, called = true[is_error], called[is_error]
    with_one = np.tile(np.diag(tiles), (len(true), 1, 1))
    rows = np.arange(len(true))
    with_one[rows, true, true] -= 1
    with_one[rows, true, called] += 1
    perfect = float(np.atleast_1d(of_confusion(np.diag(tiles)[None])[0])[column])
    cost = (perfect - of_confusion(with_one).reshape(len(true), -1)[:, column]) / (1 - lowest)
    mean, square = np.average(cost, weights=tiles[true]), np.average(cost**2, weights=tiles[true])
    if not (mean > 0 and square > 0):
        return observed
    if math.isnan(observed):
        return float(mean / square)
    errors = float(confusion[true, called][cost > 0].sum())
    return (_ERRORS_ASSUMED + errors) / (_ERRORS_ASSUMED * float(square / mean) + errors / observed)


def _expit(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0
