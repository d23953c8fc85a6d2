"""Intervals: Wilson's for proportions, percentiles of a bootstrap for everything else; knows nothing of the figures."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]
Statistics = Callable[[Weights], Mapping[str, Floats]]

N_RESAMPLES = 2000
CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_WEIGHTS_AT_ONCE = 1_000_000  # so that memory stays bounded and a part stays near the processor's caches


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where not defined."""

    value: float
    low: float
    high: float

    @property
    def is_defined(self) -> bool:
        """Whether there was anything to compute it from."""
        return not math.isnan(self.value)


def wilson(hits: int, n: int) -> Estimate:
    """Return hits / n with the score interval of Wilson 1927, "Probable inference, the law of succession, ..."."""
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan)
    share, spread = hits / n, _Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Estimate(share, 0.0 if hits == 0 else middle - reach, 1.0 if hits == n else middle + reach)


@dataclass(frozen=True, eq=False)
class Resampling:
    """How resamples of a labelled set are drawn: in each, tile i counts as often as it was drawn.

    Without groups, tiles are drawn with replacement within each class. With groups (patients, slides) whole groups are drawn,
    within each class if no group has tiles of several (Davison and Hinkley 1997, section 3.8, first strategy).

    Attributes:
        labels: ``(n_tiles,)``.
        groups: ``(n_tiles,)`` or None.
        seed: Of the draws; the same for the same set whatever is computed from them, so that models can be compared in pairs.
        n_resamples: How many.
    """

    labels: NDArray[np.int64]
    groups: NDArray[np.str_] | None = None
    seed: int = 0
    n_resamples: int = N_RESAMPLES

    def describe(self) -> str:
        """Return what was drawn, in words."""
        if self.groups is None:
            return f"{self.n_resamples} bootstrap resamples of tiles, stratified by class"
        n_groups = len(np.unique(self.groups))
        return f"{self.n_resamples} bootstrap resamples of {n_groups} whole groups (cluster bootstrap)"

    def original(self, statistics: Statistics) -> dict[str, Floats]:
        """Return each statistic of the set itself, without the axis of resamples."""
        return {name: value[0] for name, value in statistics(np.ones((1, len(self.labels)), np.float32)).items()}

    def bootstrap(self, statistics: Statistics) -> dict[str, Floats]:
        """Return each statistic of every resample, ``(n_resamples, ...)``.

        Args:
            statistics: From counts ``(n, n_tiles)`` of `n` resamples to arrays ``(n, ...)`` by name. Called from all cores.
        """
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            parts = list(pool.map(lambda draw: statistics(draw()), self._draws()))
        return {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}

    def _draws(self) -> Iterator[Callable[[], Weights]]:
        strata = self._strata()
        at_once = max(1, min(self.n_resamples, _WEIGHTS_AT_ONCE // len(self.labels)))
        starts = range(0, self.n_resamples, at_once)
        # A generator for each part: the draws do not depend on which core is faster.
        for start, seed in zip(starts, np.random.SeedSequence(self.seed).spawn(len(starts)), strict=True):
            n = min(at_once, self.n_resamples - start)
            yield partial(self._draw, strata, n, seed)

    def _strata(self) -> list[NDArray[np.int64]]:
        """Return the units (tiles or groups) in sets; of each set as many are drawn as it has."""
        if self.groups is None:
            return [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        n_groups = int(self._group_of_tile.max()) + 1
        pairs = np.unique(np.stack([self._group_of_tile, self.labels]), axis=1)
        if pairs.shape[1] > n_groups:
            return [np.arange(n_groups)]
        return [pairs[0][pairs[1] == label] for label in np.unique(pairs[1])]

    @cached_property
    def _group_of_tile(self) -> NDArray[np.int64]:
        return np.asarray(np.unique(np.asarray(self.groups), return_inverse=True)[1], dtype=np.int64)

    def _draw(self, strata: list[NDArray[np.int64]], n: int, seed: np.random.SeedSequence) -> Weights:
        rng = np.random.default_rng(seed)
        n_units = sum(len(units) for units in strata)
        counts = np.zeros((n, n_units), dtype=np.float32)
        offsets = np.arange(n)[:, None]
        for units in strata:
            drawn = rng.integers(len(units), size=(n, len(units))) + offsets * len(units)
            counts[:, units] = np.bincount(drawn.ravel(), minlength=n * len(units)).reshape(n, len(units))
        return counts if self.groups is None else counts[:, self._group_of_tile]


def with_percentiles(value: float, resampled: Floats) -> Estimate:
    """Return `value` with the percentile interval of its resamples ``(n_resamples,)``; undefined ones are left out."""
    defined = resampled[np.isfinite(resampled)]
    if math.isnan(value) or len(defined) == 0:
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
