"""The threshold to abstain by holds what it promises, or there is none."""

import numpy as np
import pytest

from histo_mlflow.evaluation.abstention import choose_threshold, fewest_kept
from histo_mlflow.evaluation.predictions import Predictions


def _said(confidence: np.ndarray, is_wrong: np.ndarray, groups: np.ndarray | None = None) -> Predictions:
    """Tiles of two classes, all called the first."""
    return Predictions(is_wrong.astype(np.int64), np.stack([confidence, 1 - confidence], axis=1), ("A", "B"), groups)


def test_299_tiles_without_an_error_show_99_percent_and_298_do_not() -> None:
    assert fewest_kept(0.99) == 299
    right = np.zeros(299, dtype=bool)
    assert choose_threshold(_said(np.linspace(0.6, 0.9, 299), right), accuracy=0.99) == pytest.approx(0.6)
    assert choose_threshold(_said(np.linspace(0.6, 0.9, 298), right[1:]), accuracy=0.99) is None


def test_it_stops_before_the_first_candidate_that_fails() -> None:
    confidence = np.linspace(0.99, 0.6, 2000)
    is_wrong = np.arange(2000) > 450  # all tiles beyond the first 451 are wrong
    threshold = choose_threshold(_said(confidence, is_wrong), accuracy=0.99)
    assert threshold == confidence[438], "of 299, 329, 362, 399, 439 kept none is wrong, of 483 there are 32"


def test_equals_are_kept_or_left_together() -> None:
    confidence = np.r_[np.full(400, 0.9), np.full(400, 0.7)]
    is_wrong = np.r_[np.zeros(400, dtype=bool), np.ones(400, dtype=bool)]
    assert choose_threshold(_said(confidence, is_wrong), accuracy=0.99) == 0.9


def test_there_is_none_with_groups() -> None:
    right, confidence = np.zeros(500, dtype=bool), np.linspace(0.6, 0.9, 500)
    assert choose_threshold(_said(confidence, right), accuracy=0.99) is not None
    assert choose_threshold(_said(confidence, right, np.array(["p1", "p2"] * 250)), accuracy=0.99) is None


@pytest.mark.parametrize("n", [350, 718, 2000])
def test_what_is_kept_of_new_tiles_falls_short_for_few_models(n: int) -> None:
    """The plain choice, the lowest confidence with 99 % of the validation tiles above it right, fails for half of them."""
    rng, n_short, n_models = np.random.default_rng(n), 0, 400
    margins = np.sort(2 * rng.normal(size=100_000) + 5)[::-1]
    chances = 1 / (1 + np.exp(-margins))
    accuracy_down_to = np.cumsum(chances) / np.arange(1, len(chances) + 1)
    for _ in range(n_models):
        drawn = 1 / (1 + np.exp(-(2 * rng.normal(size=n) + 5)))
        is_wrong = rng.random(n) > drawn
        threshold = choose_threshold(_said(0.5 + drawn / 2, is_wrong), accuracy=0.99)
        if threshold is not None:
            n_kept = max(1, int((0.5 + chances / 2 >= threshold).sum()))
            n_short += accuracy_down_to[n_kept - 1] < 0.99
    assert n_short <= 0.075 * n_models
