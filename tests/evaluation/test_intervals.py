"""Intervals: their parts against other computations, and in small, as `benchmarks/coverage.py` in large, what they hold."""

import importlib
import math
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binomtest, kurtosis

from histo_mlflow.evaluation.intervals import Units, wilson
from histo_mlflow.evaluation.limits import effective_number, effective_number_of_tiles, logit_limits, wilson_limits
from histo_mlflow.evaluation.metrics import OVERALL_METRICS, Evaluation, evaluate_predictions
from histo_mlflow.evaluation.predictions import Predictions
from tests.conftest import PROJECT

CLASSES = tuple("abcdefghi")


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 7), (977, 1000)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    found = wilson(hits, n)
    assert (found.value, found.low, found.high) == pytest.approx((hits / n, expected.low, expected.high), abs=1e-12)


def test_the_jackknife_of_a_mean_is_the_textbooks() -> None:
    values = np.random.default_rng(0).gamma(0.5, size=150)
    (spread,) = Units(150).spreads(lambda counts: {"mean": counts @ values / counts.sum(axis=1)})["mean"]
    assert spread.variance == pytest.approx(values.var(ddof=1) / 150, rel=1e-3)
    assert spread.freedom == pytest.approx(150 / (kurtosis(values, fisher=False) - 1), rel=0.01)


def test_whole_groups_are_left_out() -> None:
    """Two tiles of each group are the same, so that twenty tiles say as much as ten."""
    values = np.random.default_rng(1).normal(size=10)
    groups = np.repeat([f"p{k}" for k in range(10)], 2)
    both, one = Units(20, groups), Units(10)
    (grouped,) = both.spreads(lambda counts: {"mean": counts @ np.repeat(values, 2) / counts.sum(axis=1)})["mean"]
    (single,) = one.spreads(lambda counts: {"mean": counts @ values / counts.sum(axis=1)})["mean"]
    assert grouped.variance == pytest.approx(single.variance, rel=1e-4)
    assert (both.n, both.effective) == (10, pytest.approx(10))
    assert Units(20, np.array(["p0"] * 11 + [f"p{k}" for k in range(1, 10)])).effective == pytest.approx(400 / 130)


def test_of_many_units_blocks_are_left_out_and_say_about_the_same() -> None:
    values = np.random.default_rng(2).normal(size=5000)
    (spread,) = Units(5000).spreads(lambda counts: {"mean": counts @ values / counts.sum(axis=1)})["mean"]
    assert spread.variance == pytest.approx(values.var() / 5000, rel=0.3)


def test_an_effective_number_is_the_number_where_tiles_are_equal() -> None:
    """Of accuracy, each error costs the same, so that n tiles count as n, with errors and without."""
    for wrong in (0, 3):
        confusion = np.diag([20 - wrong, 30])
        confusion[0, 1] = wrong

        def accuracy(matrices: np.ndarray) -> np.ndarray:
            return np.trace(matrices, axis1=-2, axis2=-1) / matrices.sum(axis=(-2, -1))

        observed = 50.0 if wrong else math.nan
        assert effective_number_of_tiles(accuracy, 0, confusion, 0.0, observed) == pytest.approx(50)


def test_limits_stay_between_the_ends_of_their_figure() -> None:
    low, high = wilson_limits(-0.9, -1.0, 5.0, 12.7)
    assert -1 < low < -0.9 < high < 1
    units = Units(30)
    (spread,) = units.spreads(lambda counts: {"x": counts @ (np.arange(30) < 29) / counts.sum(axis=1)})["x"]
    low, high = logit_limits(29 / 30, spread)
    assert 0 <= low < 29 / 30 < high <= 1
    assert effective_number(29 / 30, 0.0, spread) == pytest.approx(29, rel=1e-3)


def _all_right(n: int, groups: np.ndarray | None = None) -> Evaluation:
    labels = np.arange(n) % 9
    return evaluate_predictions(Predictions(labels, 0.82 * np.eye(9)[labels] + 0.02, CLASSES, groups))


@pytest.mark.parametrize("n", [9, 47, 200])
def test_no_interval_has_no_width(n: int) -> None:
    """All tiles are right, the confidence is the same: what can't be told from that has no interval."""
    for name, each in _all_right(n).overall.items():
        assert not each.has_interval or each.high - each.low > 0.001, name
    assert _all_right(n).overall["balanced_accuracy"].high == 1


@pytest.mark.parametrize("n_groups", [1, 9, 19])
def test_few_patients_have_no_interval_and_the_page_says_how_many_are_needed(n_groups: int) -> None:
    """One patient in all, one for each class, and nearly enough; the known fault: "0.876 (0.876 to 0.876)"."""
    labels = np.repeat(np.arange(9), 50)
    predicted = np.where(np.random.default_rng(0).random(450) < 0.88, labels, (labels + 1) % 9)
    groups = np.array([f"p{k}" for k in (labels if n_groups == 9 else np.arange(450) % n_groups)])
    found = evaluate_predictions(Predictions(labels, 0.82 * np.eye(9)[predicted] + 0.02, CLASSES, groups))
    assert not any(each.has_interval for each in found.overall.values())
    assert not any(each.has_interval for row in found.per_class for each in row.estimates.values())
    assert "20 groups are needed" in found.intervals


def test_what_never_has_an_interval_and_why_is_said() -> None:
    found = _all_right(90)
    never = [name for name, metric in OVERALL_METRICS.items() if not metric.has_interval]
    assert never
    assert not any(found.overall[name].has_interval for name in never)
    assert "Calibration error, predicted class" in found.intervals
    assert "12 errors are needed" in found.intervals


def _by_patients(n_with_errors: int) -> Evaluation:
    """Of 30 patients with 27 tiles each, so many have one tile of the first class called the second."""
    labels, groups = np.arange(810) % 9, np.repeat([f"p{k}" for k in range(30)], 27)
    called = labels.copy()
    called[27 * np.arange(n_with_errors)] = 1
    return evaluate_predictions(Predictions(labels, 0.82 * np.eye(9)[called] + 0.02, CLASSES, groups))


@pytest.mark.parametrize(
    ("n_with_errors", "shown"),
    [
        (1, set()),
        (2, {"sensitivity", "npv"}),
        (4, {"sensitivity", "npv", "f1", "one_vs_rest_accuracy"}),
        (6, {"sensitivity", "npv", "f1", "one_vs_rest_accuracy", "auroc", "auprc"}),
    ],
)
def test_a_class_needs_patients_with_errors(n_with_errors: int, shown: set[str]) -> None:
    first = _by_patients(n_with_errors).per_class[0].estimates
    assert {name for name, each in first.items() if each.has_interval} == shown


def test_of_few_patients_the_degrees_of_freedom_are_halved() -> None:
    values = np.tile([-1.0, 1.0], 10)  # as evenly spread as can be: the kurtosis would allow any number
    groups = np.array([f"p{k}" for k in range(20)])
    (spread,) = Units(20, groups).spreads(lambda counts: {"mean": counts @ values / counts.sum(axis=1)})["mean"]
    assert spread.freedom == pytest.approx((20 - 1) / 2)


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    return importlib.import_module("coverage")


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ((47, False, False, 0.98), ("balanced_accuracy", "macro_f1", "cohens_kappa")),
        ((200, False, True, 0.9), ("balanced_accuracy", "macro_auroc", "log_loss")),
        ((20, True, False, 0.88), ("balanced_accuracy", "macro_auroc", "specificity", "f1")),
        ((200, False, False, 0.9, True), ("balanced_accuracy", "accuracy", "log_loss")),
        ((20, True, True, 0.88, True), ("balanced_accuracy", "accuracy", "log_loss")),
    ],
)
def test_in_small_they_hold_the_truth(
    simulation: ModuleType, cell: tuple[int, bool, bool, float, bool], names: tuple[str, ...]
) -> None:
    """Of 60 studies in four worlds; a share of 0.95 has then a standard error of 0.028."""
    asked = simulation.Cell(*cell)
    settings = [simulation.Setting.of(asked, seed, 50_000) for seed in range(4)]
    studies = [simulation.count(asked, settings[seed % 4], seed) for seed in range(60)]
    for name in names:
        n, shown, held = np.sum([study[name] for study in studies], axis=0)
        assert shown >= 0.9 * n, name
        assert held / shown >= 0.87, name


def test_a_figure_near_an_edge_is_looked_at_again(simulation: ModuleType) -> None:
    """All studies count: 286 of 300 that held (0.953) are enough, 280 (0.933) and 296 (0.987) are not; of 1,500 0.933 are."""
    asked = {(300, 286): False, (300, 280): True, (300, 296): True, (1500, 1390): True, (1500, 1400): False}
    for (n, held), again in asked.items():
        assert simulation.needs_more(np.array([n, n, held]), n) is again
    assert not simulation.needs_more(np.array([300, 10, 5]), 300), "hardly shown, it counts as having no interval"
