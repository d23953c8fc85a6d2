import numpy as np
import pytest
from scipy.stats import beta

from histo_mlflow.evaluation.gains import Gains, gains_in_accuracy, gains_of_units, probability_below_zero


def _of(gained: list[int], lost: list[int], tiles: list[int]) -> Gains:
    return gains_in_accuracy(np.array(gained), np.array(lost), np.array(tiles))


@pytest.mark.parametrize("n", [9, 47, 200, 400])
def test_where_nothing_differs_it_is_the_rule_of_three(n: int) -> None:
    found = _of([0], [0], [n])
    assert found.p_value(0.01) == pytest.approx(0.99**n, rel=0.03)
    assert found.lower(0.025) == pytest.approx(0.025 ** (1 / n) - 1, rel=0.03)


@pytest.mark.parametrize(("lost", "n"), [(1, 50), (4, 200), (30, 300)])
def test_of_losses_alone_it_is_the_limit_of_clopper_and_pearson(lost: int, n: int) -> None:
    assert -_of([0], [lost], [n]).lower(0.025) == pytest.approx(beta.ppf(0.975, lost + 1, n - lost), rel=0.01)


def test_the_probability_is_that_of_drawn_weights() -> None:
    terms, counts = np.array([1.01, 0.01, -0.99, -3.0]), np.array([20, 650, 18, 1])
    drawn = np.random.default_rng(0).gamma(counts, size=(200_000, 4)) @ terms
    assert probability_below_zero(terms, counts) == pytest.approx((drawn < 0).mean(), rel=0.02)


def test_sums_of_one_sign_are_certain() -> None:
    assert _of([5], [0], [5]).p_value(1.0) == 0
    assert _of([0], [5], [5]).p_value(0.5) == 1
    assert _of([0], [5], [5]).lower(0.025) == -1


def test_counted_tiles_and_single_ones_say_the_same() -> None:
    gain = np.zeros(60)
    gain[[0, 1, 45]], gain[[2, 50]] = 1, -1
    counted = _of([2, 1], [1, 1], [30, 30])
    single = gains_of_units(gain, -1.0)
    assert counted.p_value(0.05) == pytest.approx(float(single.p_value(0.05)), rel=1e-6)
    assert counted.lower(0.01) == pytest.approx(single.lower(0.01), abs=1e-6)
