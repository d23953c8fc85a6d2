"""Intervals from leaving units out, and Wilson's for proportions; knows nothing of the figures.

A unit is a tile, or all tiles of a group (patient, slide) where groups are known.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]
Statistics = Callable[[Weights], Mapping[str, Floats]]

CONFIDENCE = 0.95
QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_MOST_UNITS = 200
_TINY = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where not defined. A value may be defined and have no interval."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def is_defined(self) -> bool:
        """Whether there was anything to compute it from."""
        return not math.isnan(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether anything can be said of its uncertainty."""
        return not math.isnan(self.low)


def wilson(hits: int, n: int) -> Estimate:
    """Return hits / n with the score interval of Wilson 1927, "Probable inference, the law of succession, ..."."""
    if n == 0:
        return Estimate(math.nan)
    return Estimate(hits / n, *score_limits(hits / n, n))


def score_limits(share: float, n: float, quantile: float = QUANTILE) -> tuple[float, float]:
    """Return Wilson's limits of a share of `n` independent tiles; `n` may be an effective number, and no whole one."""
    spread = quantile**2 / n
    middle = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(max(share * (1 - share), 0) * spread + spread**2 / 4) / (1 + spread)
    return (0.0 if share <= 0 else middle - reach), (1.0 if share >= 1 else middle + reach)


@dataclass(frozen=True)
class Spread:
    """What leaving units out says of a figure's error.

    Attributes:
        variance: Of the figure.
        freedom: Degrees of freedom of `variance`: about the number of units that the error comes from.
    """

    variance: float
    freedom: float

    @property
    def quantile(self) -> float:
        """Of Student's t for a two-sided interval."""
        from scipy.stats import t

        return float(t.ppf((1 + CONFIDENCE) / 2, self.freedom))


@dataclass(frozen=True, eq=False)
class Units:
    """A labelled set in units that are independent of one another.

    Attributes:
        n_tiles: In all.
        groups: ``(n_tiles,)`` ids of patient or slide, or None: then each tile is a unit.
    """

    n_tiles: int
    groups: NDArray[np.str_] | None = None

    @cached_property
    def n(self) -> int:
        """Number of units."""
        return self.n_tiles if self.groups is None else len(np.unique(self.groups))

    @cached_property
    def effective(self) -> float:
        """Number of units of equal size that would tell as much (Kish 1965, "Survey sampling", section 11.7)."""
        return float(1 / ((np.bincount(self.of_tile) / self.n_tiles) ** 2).sum())

    @cached_property
    def of_tile(self) -> NDArray[np.int64]:
        """Number of the unit of each tile ``(n_tiles,)``, from 0."""
        if self.groups is None:
            return np.arange(self.n_tiles)
        return np.asarray(np.unique(self.groups, return_inverse=True)[1], dtype=np.int64)

    def describe(self) -> str:
        """Return what is left out, in words."""
        if self.groups is None:
            return f"{self.n} tiles"
        return f"{self.n} whole groups (patients, slides), which tell as much as {self.effective:.1f} of equal size"

    def value(self, statistics: Statistics) -> dict[str, Floats]:
        """Return each statistic of the set itself, without the axis of resamples."""
        return {name: value[0] for name, value in statistics(np.ones((1, self.n_tiles), np.float32)).items()}

    def spreads(self, statistics: Statistics) -> dict[str, list[Spread]]:
        """Return the jackknife's variance of each statistic, one for each of its columns.

        One unit is left out at a time; of more than 200 units, a random 200th of them (Kott 2001, "The delete-a-group
        jackknife"). The errors of a good model come from few tiles or patients. How many, the kurtosis of the differences
        says: from it follow the degrees of freedom (Satterthwaite 1946), of groups at most half of the effective number of them
        less one: of few, the worst are often not among them, and the rest look alike (simulated, benchmarks/coverage.py).

        Args:
            statistics: From counts ``(n, n_tiles)`` of `n` resamples to arrays ``(n, ...)`` by name.
        """
        unit = self.of_tile
        if self.n > _MOST_UNITS:
            unit = (np.random.default_rng(0).permutation(self.n) % _MOST_UNITS)[unit]
        n = int(unit.max()) + 1
        counts = np.ones((n, self.n_tiles), np.float32)
        if n > 1:  # without its only unit nothing is left
            counts[unit, np.arange(self.n_tiles)] = 0
        return {name: [self._spread(column) for column in left.reshape(n, -1).T] for name, left in statistics(counts).items()}

    def _spread(self, left: Floats) -> Spread:
        n = len(left)
        squares = (left - left.mean()) ** 2
        if n < 2 or not np.isfinite(squares).all() or squares.mean() < _TINY**2:
            return Spread(math.nan, math.nan)
        kurtosis = float((squares**2).mean() / squares.mean() ** 2)
        most = (self.effective - 1) / 2 if self.groups is not None else n - 1
        return Spread((n - 1) * float(squares.mean()), min(n / max(kurtosis - 1, _TINY), most))
