"""Are these tiles like those that a model was tried on? A two-sample test that needs no labels; knows no network.

Two scores of each tile, how strange its features are and how sure the model is (`models/training_summary.py`), are averaged
over the batch and set against tiles that the model has not learnt from. Which class a tile is called is taken out of its
scores, so that a batch of another mix of classes is not called drift. What was tried beside it, and figures: docs/drift.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from histo_mlflow.models.training_summary import CONFIDENCE, SCORES, STRANGENESS, Floats, Tally, TrainingSummary

FALSE_ALARMS = 0.05
"""At most so many batches of a model's own kind are called unlike it."""

# Stricter than that by what skewed scores, few tiles and unlike mixes of classes were seen to cost (docs/drift.md).
_ALARM_BELOW = 0.03
MIN_TILES = 20
MIN_GROUPS = 3
# How the level is shared among what may be off (weighted Bonferroni, Genovese, Roeder and Wasserman 2006). Other organs are
# stranger; patients differ so much in how sure a model is of them that only a restained or blurred batch shows there.
_SHARES = {(STRANGENESS, 1): 0.7, (STRANGENESS, -1): 0.1, (CONFIDENCE, 1): 0.1, (CONFIDENCE, -1): 0.1}
_PRIOR_TILES = 1  # of the mean of all classes, in the mean of each: a class that no held-out tile is called has that mean


@dataclass(frozen=True)
class Drift:
    """How a batch of tiles compares with what a model was tried on.

    Attributes:
        p_value: How often a batch of its own kind would be as far off or farther.
        shifts: By score, how far its mean lies from that of held-out tiles, in standard deviations of a tile.
        n_tiles: In the batch.
        n_units: Groups (patients, slides) that it was compared with, or tiles where no groups are known.
        is_grouped: Whether groups are known.
    """

    p_value: float
    shifts: Mapping[str, float]
    n_tiles: int
    n_units: int
    is_grouped: bool

    @property
    def is_alarm(self) -> bool:
        """Whether the batch is called unlike what the model was tried on."""
        return self.p_value < _ALARM_BELOW

    @property
    def distance(self) -> float:
        """How strange the tiles are, in standard deviations of a held-out tile; how sure, where there are only logits."""
        return self.shifts.get(STRANGENESS, next(iter(self.shifts.values())))

    def metrics(self) -> dict[str, float]:
        """Return the figures by the names that runs have them under."""
        named = {f"drift/{name}": value for name, value in self.shifts.items()}
        return {"drift/p_value": self.p_value, "drift/distance": self.distance, "drift/n_tiles": float(self.n_tiles)} | named

    def describe(self) -> str:
        """Return what was found in one sentence."""
        of = f"{self.n_units} groups" if self.is_grouped else f"{self.n_units} tiles"
        figures = ", ".join(f"{name} {value:+.2f} sd" for name, value in self.shifts.items())
        if STRANGENESS not in self.shifts:
            figures += " alone, as this runtime gives no features"
        if not self.is_alarm:
            return (
                f"drift: nothing unusual about these {self.n_tiles} tiles (p {self.p_value:.2g}, {figures}, by {of} held out)"
            )
        known = "" if self.is_grouped else "; its training knew no patients, so a new patient's tiles may be called so too"
        return (
            f"these {self.n_tiles} tiles are unlike anything this model was tried on (p {self.p_value:.2g}, {figures}, by {of} "
            f"held out; of batches like its own at most {FALSE_ALARMS:.0%} are called so{known})"
        )


def find_objection(summary: TrainingSummary, n_tiles: int) -> str | None:
    """Return why a batch can't be compared with a summary, or None."""
    if n_tiles < MIN_TILES:
        return f"{n_tiles} tiles are too few to be compared with what the model was tried on; {MIN_TILES} are needed"
    if summary.is_grouped and len(summary.counts) < MIN_GROUPS:
        return f"only {len(summary.counts)} patients or slides were held out of its training, from which no other can be judged"
    if summary.counts.sum() < MIN_TILES:
        return f"only {summary.counts.sum():.0f} tiles were held out of its training"
    return None


def compare(summary: TrainingSummary, batch: Tally) -> Drift:
    """Return how a batch compares with the tiles of a summary, where `find_objection` has none.

    Of a summary without groups: a t-test between tiles. With groups, the batch counts as tiles of one of them: the means of
    groups are drawn from a normal distribution, and a new one is judged by its prediction interval, so that the rate of false
    alarms holds for tiles of one patient at a time. Scores that the batch lacks are passed over, and the level is theirs.
    """
    found = {SCORES[k]: _judge(summary, batch, k) for k, sums in enumerate(batch.sums) if np.isfinite(sums).all()}
    asked = {tail: share for tail, share in _SHARES.items() if tail[0] in found}
    level = sum(asked.values())
    tails = [stats.t.sf(sign * found[name].t, found[name].freedom) / share for (name, sign), share in asked.items()]
    p_value = min(1.0, float(min(tails)) * level)
    shifts = {name: each.shift for name, each in found.items()}
    n_units = len(summary.counts) if summary.is_grouped else int(summary.counts.sum())
    return Drift(p_value, shifts, int(batch.counts.sum()), n_units, summary.is_grouped)


@dataclass(frozen=True)
class _Judged:
    """Of one score: t and its degrees of freedom, and the shift in standard deviations of a tile."""

    t: float
    freedom: int
    shift: float


def _judge(summary: TrainingSummary, batch: Tally, score: int) -> _Judged:
    counts, sums = summary.counts.astype(np.float64), summary.sums[score].astype(np.float64)
    variance, n_tiles = float(summary.variances[score]), batch.counts.sum()
    mix, of_class = batch.counts / n_tiles, counts.sum(axis=0)
    means = _means(of_class, sums.sum(axis=0))
    shift = float(batch.sums[score].sum() / n_tiles - mix @ means)
    if summary.is_grouped:
        centre, spread = _spread_of_groups(counts, sums, variance, n_tiles)
        t, freedom = (shift - centre) / spread, len(counts) - 1
    else:
        of_means = (mix**2 @ _variances_of_means(of_class, means, variance)) + variance / n_tiles
        t, freedom = shift / np.sqrt(of_means), int(counts.sum()) - 1
    return _Judged(float(t), freedom, shift / float(np.sqrt(variance)))


def _means(counts: Floats, sums: Floats) -> Floats:
    """Return the mean score of each class ``(n_classes,)``; of a class with few tiles it lies near that of all."""
    means: Floats = (sums + _PRIOR_TILES * sums.sum() / counts.sum()) / (counts + _PRIOR_TILES)
    return means


def _variances_of_means(counts: Floats, means: Floats, variance: float) -> Floats:
    """Return the mean squared error of what `_means` returns: of chance, and of what the mean of all draws it towards."""
    shares = counts / counts.sum()
    between = shares @ (means - shares @ means) ** 2
    errors: Floats = (variance * counts + between * _PRIOR_TILES**2) / (counts + _PRIOR_TILES) ** 2
    return errors


def _spread_of_groups(counts: Floats, sums: Floats, variance: float, n_tiles: float) -> tuple[float, float]:
    """Return the mean over groups of their shift from all others, and the standard deviation of a new group's from it.

    A new group of `n_tiles` has the variance between groups, that of a mean of so few tiles where the groups had more, and
    that of the mean of the groups itself.
    """
    of_group = counts.sum(axis=1)
    rest = [(counts.sum(axis=0) - own, sums.sum(axis=0) - own_sums) for own, own_sums in zip(counts, sums, strict=True)]
    shifts = np.array(
        [
            own_sums.sum() / n - own / n @ _means(*others)
            for own, own_sums, n, others in zip(counts, sums, of_group, rest, strict=True)
        ]
    )
    fewer = np.maximum(0, variance / n_tiles - variance / of_group).mean()
    total = max(shifts.var(ddof=1) + fewer, np.finfo(np.float64).tiny)
    return float(shifts.mean()), float(np.sqrt(total * (1 + 1 / len(shifts))))
