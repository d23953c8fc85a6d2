"""Two models on the same tiles: the differences of their metrics with intervals, and where they disagree."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.intervals import Estimate, Floats, Units, Weights
from histo_mlflow.evaluation.limits import plain_limits
from histo_mlflow.evaluation.metrics import FEWEST_GROUPS, OVERALL_METRICS, are_enough, statistics_of
from histo_mlflow.evaluation.predictions import Predictions

COMPARED = (
    "balanced_accuracy",
    "accuracy",
    "macro_f1",
    "macro_auroc",
    "log_loss",
    "brier_score",
    "expected_cost",
    "ece_top_label",
)
"""Names of `OVERALL_METRICS`."""


FEWEST_DIFFERENT = 10
"""Tiles (of a class, for its sensitivity) that only one of two models gets right: with fewer no interval holds."""
_LEAST_FREEDOM = 25.0
"""Of a difference: gains and losses weigh each other up, and few degrees of freedom would widen it for nothing (simulated)."""
_SHARES = {"accuracy", "balanced_accuracy", "sensitivity"}  # which differ by 1 at most
_WITHOUT_INTERVAL = ("macro_auroc", "ece_top_label")
"""Of these no method is known whose interval of a difference holds: the jackknife's is too wide, or there is a bias."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """By how much B is better or worse than A on one labelled set.

    Attributes:
        a, b: What each model said.
        values: (A, B) by name of metric.
        differences: B minus A with its interval, if it has one.
        sensitivity: B minus A of each class, in class order.
        only_a, only_b: Tiles that only A, only B got right.
        p_value: Of a test of equal accuracy; 1 where they never differ.
        test: Which test, in words.
        intervals: How they were made, in words.
    """

    a: Predictions
    b: Predictions
    values: dict[str, tuple[float, float]]
    differences: dict[str, Estimate]
    sensitivity: tuple[Estimate, ...]
    only_a: int
    only_b: int
    p_value: float
    test: str
    intervals: str

    def _repr_html_(self) -> str:
        from histo_mlflow.evaluation.notebook import differences_of, table_of  # which know of this

        return table_of("A → B", differences_of(self))

    @property
    def disagree(self) -> NDArray[np.int64]:
        """Tiles that they call differently, the most confident disagreement first."""
        rows = np.flatnonzero(self.a.predicted != self.b.predicted)
        return rows[np.argsort(-(self.a.confidence + self.b.confidence)[rows], kind="stable")]


def compare_predictions(a: Predictions, b: Predictions, *, costs: Floats | None = None) -> Comparison:
    """Return the comparison of two models on the same tiles.

    Intervals are of a paired jackknife: each unit is left out for both models at once, so that what makes tiles hard for both
    cancels. There is none where only one of them is right on fewer than 10 tiles, and none for fewer than 20 groups. Of
    independent tiles, those that only one of them got right are compared by McNemar 1947, here with the exact binomial
    distribution. Of tiles in groups it would find differences where there are none, and the models change places in whole
    groups instead.

    Raises:
        RequestError: They were not made on the same labelled tiles with the same classes.
    """
    if a.classes != b.classes or not np.array_equal(a.labels, b.labels):
        raise RequestError("the two models were not scored on the same tiles with the same classes in the same order")
    statistics = [statistics_of(each, costs, (*COMPARED, "sensitivity")) for each in (a, b)]

    def difference(counts: Weights) -> dict[str, Floats]:
        of_a, of_b = (of_model(counts) for of_model in statistics)
        return {name: of_b[name] - of_a[name] for name in of_a}

    units = Units(len(a.labels), a.groups)
    of_a, of_b = (units.value(of_model) for of_model in statistics)
    spreads = units.spreads(difference)

    is_different = a.is_wrong != b.is_wrong

    def estimate(name: str, k: int = 0, n_different: int = int(is_different.sum())) -> Estimate:
        value, spread = float(np.atleast_1d(of_b[name] - of_a[name])[k]), spreads[name][k]
        if name in _WITHOUT_INTERVAL or n_different < FEWEST_DIFFERENT or not are_enough(units):
            return Estimate(value)
        low, high = plain_limits(value, replace(spread, freedom=max(spread.freedom, _LEAST_FREEDOM)))
        return Estimate(value, max(low, -1.0), min(high, 1.0)) if name in _SHARES else Estimate(value, low, high)

    pairs = {name: (float(of_a[name]), float(of_b[name])) for name in COMPARED}
    differences = {name: estimate(name) for name in COMPARED}
    different = np.bincount(a.labels[is_different], minlength=len(a.classes))
    sensitivity = tuple(estimate("sensitivity", k, int(n)) for k, n in enumerate(different))
    only_a, only_b = int((b.is_wrong & ~a.is_wrong).sum()), int((a.is_wrong & ~b.is_wrong).sum())
    words = _describe_intervals(units)
    if a.groups is None:
        p_value, test = mcnemar(only_a, only_b), "McNemar's exact test"
    else:
        p_value, test = permute_groups(a, b), "permutation test over whole groups"
    return Comparison(a, b, pairs, differences, sensitivity, only_a, only_b, p_value, test, words)


def _describe_intervals(units: Units) -> str:
    words = f"Paired jackknife over {units.describe()}, left out for both models at once; Student's t."
    if not are_enough(units):
        return f"{words} No interval: {FEWEST_GROUPS} groups are needed."
    never = ", ".join(OVERALL_METRICS[name].words for name in _WITHOUT_INTERVAL)
    return (
        f"{words} An interval needs {FEWEST_DIFFERENT} tiles that only one of the two gets right (of a class, in that class). "
        f"No interval is known that holds: {never}."
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value that a tile which only one model gets right is as likely A's as B's."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def permute_groups(a: Predictions, b: Predictions) -> float:
    """Return the two-sided p-value that two models, each group's tiles under either's name, are as often right.

    The models are exchanged in each group or not (a paired permutation test, Good 2005, "Permutation, parametric and bootstrap
    tests"): in all ways where there are few groups, in 9,999 random ones with a fixed seed where there are many.
    """
    from scipy.stats import permutation_test

    of_tile = np.unique(np.asarray(a.groups), return_inverse=True)[1]
    of_a, of_b = (np.bincount(of_tile, each.is_wrong).astype(np.int64) for each in (a, b))
    if np.array_equal(of_a, of_b):
        return 1.0

    def more_wrong(of_a: NDArray[np.int64], of_b: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        return np.asarray((of_a - of_b).sum(axis=axis))

    found = permutation_test((of_a, of_b), more_wrong, permutation_type="samples", vectorized=True, n_resamples=9999, rng=0)
    return float(found.pvalue)
