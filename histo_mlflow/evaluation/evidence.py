"""What a labelled set tells of a candidate beside an incumbent, and how large a set must be; decides nothing."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.gains import (
    LEAST_LOSS_OF_PATIENT,
    LEAST_LOST_SHARE,
    LEAST_WORST_LOSS,
    Gains,
    gains_in_accuracy,
    gains_of_patients,
    gains_of_units,
)
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.evaluation.predictions import Predictions

MIN_TILES = 5
"""Of each class: of fewer not even the loss of the whole class would be shown."""
MIN_PATIENTS_OF_CLASS = 3
MIN_PATIENTS = 10
"""Of equal size; unequal ones count as so many equal ones as Kish 1965 ("Survey Sampling", section 11.2) tells."""
PLANNED_DISAGREEMENT = 0.025
"""Share of tiles that only one of two models gets right, assumed before they are scored."""
PLANNED_CORRELATION = 0.1
"""Of the tiles of one patient, assumed before they are scored."""
POWER = 0.8


@dataclass(frozen=True, eq=False)
class Evidence:
    """One gain with tiles as units and, where patients are known, with these too; what holds is the more cautious of both."""

    by_unit: tuple[Gains, ...]

    def p_value(self, margin: float) -> Floats:
        """Return an upper bound of the chance of such gains if the candidate is truly worse by `margin`."""
        return np.asarray(np.max([gains.p_value(margin) for gains in self.by_unit], axis=0))

    def lower(self, alpha: float) -> float:
        """Return the lower limit of the gain at a one-sided error of `alpha`."""
        return min(gains.lower(alpha) for gains in self.by_unit)


@dataclass(frozen=True, eq=False)
class Layout:
    """Which tiles a set has.

    Attributes:
        labels: ``(n_tiles,)``, positions in `classes`.
        classes: Every class that the models know.
        groups: ``(n_tiles,)`` ids of patients or slides, or None.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.str_] | None = None

    @property
    def tiles(self) -> NDArray[np.int64]:
        """Tiles of each class ``(n_classes,)``."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def describe_lack(self) -> str:
        """Return what the set lacks for a decision, by name, or an empty text."""
        lacks = [f"{name} ({n} tiles)" for name, n in zip(self.classes, self.tiles, strict=True) if n < MIN_TILES]
        if lacks:
            return f"too few tiles of {', '.join(lacks)}: each class needs {MIN_TILES} at least"
        if self.groups is None:
            return ""
        patients = [len(np.unique(self.groups[self.labels == k])) for k in range(len(self.classes))]
        lacks = [f"{self.classes[k]} ({n})" for k, n in enumerate(patients) if n < MIN_PATIENTS_OF_CLASS]
        if lacks:
            return f"tiles of too few patients: {', '.join(lacks)}, each class needs {MIN_PATIENTS_OF_CLASS} at least"
        if self.n_patients < MIN_PATIENTS:
            return f"the tiles are of as much as {self.n_patients:.1f} patients of equal size, {MIN_PATIENTS} are needed"
        return ""

    @property
    def n_patients(self) -> float:
        """The effective number of patients; of tiles where no patients are known."""
        if self.groups is None:
            return float(len(self.labels))
        sizes = np.unique(self.groups, return_counts=True)[1].astype(float)
        return float(sizes.sum() ** 2 / (sizes**2).sum())

    def tiles_needed(self, margin: float, alpha: float, disagreement: float = PLANNED_DISAGREEMENT) -> float:
        """Return how many tiles of this class mix show with `POWER` that an equal candidate is not worse by `margin`.

        Tiles are taken as independent. From there on the normal limit, with the unseen tile taken off, clears the margin.
        """
        weight = self.tiles.sum() / (len(self.tiles) * self.tiles)
        return _units_needed(disagreement * float(weight.mean()), float(weight.max()), margin, alpha)

    def patients_needed(self, margin: float, alpha: float) -> float:
        """Return the same for patients of equal size, with as many tiles of each as here on average.

        The tiles of one patient are taken to be as alike as `PLANNED_CORRELATION` says (Donner and Klar 2000).
        """
        n_tiles = len(self.labels) / self.n_patients
        variance = PLANNED_DISAGREEMENT * (PLANNED_CORRELATION + (1 - PLANNED_CORRELATION) / n_tiles)
        return _units_needed(variance, LEAST_LOST_SHARE, margin, alpha)

    def describe_need(self, margin: float, alpha: float) -> str:
        """Return how large a set the decision needs, and how large this one is, in a sentence."""
        if margin == 0:
            return "margin=0: only a better candidate can pass, and how many tiles show it depends on how much better it is"
        needed = f"about {_rounded(self.tiles_needed(margin, alpha)):,} tiles of this class mix"
        has = f"{len(self.labels):,}"
        if self.groups is not None:
            needed += f" of about {_rounded(self.patients_needed(margin, alpha)):,} patients"
            has += f" of as much as {self.n_patients:.0f} patients of equal size"
        return (
            f"you have {has}; needed are {needed} for an equal candidate to pass with {POWER:.0%} power, if only one of "
            f"both is right on {PLANNED_DISAGREEMENT:.1%} of the tiles"
        )


def _units_needed(variance: float, unseen: float, margin: float, alpha: float) -> float:
    from scipy.special import ndtri

    spread = -float(ndtri(alpha) + ndtri(1 - POWER)) * math.sqrt(variance)
    by_spread = ((spread + math.sqrt(spread**2 + 4 * margin * unseen)) / (2 * margin)) ** 2
    return max(by_spread, -math.log(alpha) * unseen / margin)


def _rounded(n: float) -> int:
    """Return `n` with two digits that count."""
    return int(float(f"{n:.1e}"))


def gain_in_balanced_accuracy(a: Predictions, b: Predictions) -> Evidence:
    """Return by how much B finds more than A, on average over the classes, all of which must have tiles."""
    n_classes = len(a.classes)
    tiles = np.bincount(a.labels, minlength=n_classes)
    gain = _gain(a, b)
    gained, lost = (np.bincount(a.labels[gain == sign], minlength=n_classes) for sign in (1, -1))
    by_tile = gains_in_accuracy(gained, lost, tiles)
    if a.groups is None:
        return Evidence((by_tile,))
    weight = (tiles.sum() / (n_classes * tiles))[a.labels]
    return Evidence((by_tile, gains_of_patients(*_means(gain, weight, a.groups), LEAST_LOST_SHARE, 1.0)))


def gain_in_log_loss(a: Predictions, b: Predictions) -> Evidence:
    """Return by how much the loss of B is lower than that of A, in nats."""
    gain = a.losses - b.losses
    by_tile = gains_of_units(gain, -max(LEAST_WORST_LOSS, float(a.losses.max()), float(b.losses.max())))
    if a.groups is None:
        return Evidence((by_tile,))
    return Evidence((by_tile, gains_of_patients(*_means(gain, np.ones(len(gain)), a.groups), LEAST_LOSS_OF_PATIENT)))


def loss_of_class(a: Predictions, b: Predictions, k: int) -> Evidence:
    """Return by how much A finds more of class `k` than B: a gain of A, so that its lower limit is a loss that is shown."""
    rows = a.labels == k
    loss = -_gain(a, b)[rows]
    by_tile = gains_of_units(loss, -1.0)
    if a.groups is None:
        return Evidence((by_tile,))
    return Evidence((by_tile, gains_of_patients(*_means(loss, np.ones(len(loss)), a.groups[rows]), LEAST_LOST_SHARE, 1.0)))


def _gain(a: Predictions, b: Predictions) -> Floats:
    return a.is_wrong.astype(float) - b.is_wrong


def _means(gain: Floats, weight: Floats, groups: NDArray[np.str_]) -> tuple[Floats, Floats]:
    """Return of each patient the mean gain, and how much it counts: 1 on average over the patients."""
    of_tile: NDArray[Any] = np.unique(groups, return_inverse=True)[1]
    weights = np.bincount(of_tile, weight)
    return np.bincount(of_tile, weight * gain) / weights, weights / weights.mean()
