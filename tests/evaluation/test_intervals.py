"""Whether a nominal 95 % interval holds the truth in about 95 of 100 studies."""

import numpy as np
import pytest
from scipy.stats import binomtest

from histo_mlflow.evaluation.intervals import Resampling, wilson
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.predictions import Predictions

CLASSES = ("a", "b", "c")


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 7), (977, 1000)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    found = wilson(hits, n)
    assert (found.value, found.low, found.high) == pytest.approx((hits / n, expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("share", "n"), [(0.5, 50), (0.8, 100), (0.95, 200), (0.977, 7180)])
def test_coverage_of_wilson(share: float, n: int) -> None:
    drawn = np.random.default_rng(0).binomial(n, share, 20_000)
    intervals = {hits: wilson(int(hits), n) for hits in np.unique(drawn)}
    covered = np.mean([intervals[hits].low <= share <= intervals[hits].high for hits in drawn])
    assert 0.93 <= covered <= 0.97


def _draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of equal size and scores about a mean for each: the truth can be had from a very large draw."""
    labels = np.repeat([0, 1, 2], n // 3)
    scores = 1.2 * np.eye(3)[labels] + rng.normal(size=(len(labels), 3))
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return labels, probabilities


def test_coverage_of_the_bootstrap() -> None:
    """Stated case: 300 tiles of three classes, 400 studies; the binomial error of a share of 0.95 is then 0.011."""
    names = ("balanced_accuracy", "macro_f1", "macro_auroc", "log_loss", "brier_score", "matthews_correlation")
    rng = np.random.default_rng(1)
    large = evaluate_predictions(Predictions(*_draw(rng, 300_000), CLASSES), n_resamples=1)
    truth = {name: large.overall[name].value for name in names}
    covered = dict.fromkeys(names, 0)
    for study in range(400):
        found = evaluate_predictions(Predictions(*_draw(rng, 300), CLASSES), seed=study, n_resamples=500).overall
        for name in names:
            covered[name] += found[name].low <= truth[name] <= found[name].high
    shares = {name: hits / 400 for name, hits in covered.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


def test_coverage_of_the_cluster_bootstrap() -> None:
    """Stated case: 80 patients with 10 tiles each, whose chance to be right differs between patients; 400 studies."""
    rng, covered, naive = np.random.default_rng(2), 0, 0
    groups = np.repeat([f"p{k}" for k in range(80)], 10)
    labels = np.repeat(np.arange(80) % 2, 10)
    for study in range(400):
        is_right = rng.random(800) < np.repeat(rng.beta(4, 1, 80), 10)  # in mean 0.8 are right
        probabilities = np.eye(2)[np.where(is_right, labels, 1 - labels)]
        found = evaluate_predictions(Predictions(labels, probabilities, ("a", "b"), groups), seed=study, n_resamples=500)
        covered += found.overall["balanced_accuracy"].low <= 0.8 <= found.overall["balanced_accuracy"].high
        interval = wilson(int(is_right.sum()), 800)
        naive += interval.low <= 0.8 <= interval.high
    assert 0.93 <= covered / 400 <= 0.97
    assert naive / 400 < 0.9, "this case would not tell the two apart"


def test_resamples_keep_class_sizes_and_do_not_depend_on_cores() -> None:
    labels = np.repeat([0, 1, 2], [5, 70, 300])
    resampling = Resampling(labels, seed=3, n_resamples=3000)  # more than one part
    sums = resampling.bootstrap(lambda counts: {f"{k}": counts[:, labels == k].sum(axis=1) for k in range(3)})
    assert {name: set(values) for name, values in sums.items()} == {"0": {5.0}, "1": {70.0}, "2": {300.0}}
    first, again = (resampling.bootstrap(lambda counts: {"x": counts @ np.arange(375.0)})["x"] for _ in range(2))
    assert np.array_equal(first, again)


def test_groups_of_one_class_are_stratified() -> None:
    labels = np.repeat([0, 1], [40, 60])
    groups = np.repeat([f"g{k}" for k in range(10)], 10)
    counts = Resampling(labels, groups, n_resamples=50).bootstrap(lambda c: {"c": c})["c"]
    assert (counts[:, labels == 0].sum(axis=1) == 40).all()
    assert (counts.reshape(50, 10, 10) == counts.reshape(50, 10, 10)[:, :, :1]).all(), "tiles of a group go together"
