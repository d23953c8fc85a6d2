from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from histo_mlflow.evaluation.calibration import Calibration, cross_fit, fit_temperature, log_loss_of, reliability, scale
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.ranking import risk_coverage_curve


def _overconfident(seed: int, factor: float, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(logits / factor): the logits are overconfident by just that factor."""
    rng = np.random.default_rng(seed)
    true_logits = 2 * rng.normal(size=(n, 5))
    probabilities = np.exp(true_logits) / np.exp(true_logits).sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=4)
    return factor * true_logits, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(factor: float) -> None:
    logits, labels = _overconfident(0, factor)
    assert fit_temperature(logits, labels) == pytest.approx(factor, rel=0.06)


def test_scaling_lowers_the_loss_and_keeps_every_label() -> None:
    logits, labels = _overconfident(1, 4.0)
    temperature = fit_temperature(logits, labels)
    assert log_loss_of(logits / temperature, labels) < 0.7 * log_loss_of(logits, labels)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    scaled = scale(probabilities, temperature)
    assert (scaled.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert -np.log(scaled[np.arange(len(labels)), labels]).mean() == pytest.approx(log_loss_of(logits / temperature, labels))


def test_a_set_without_errors_says_nothing_of_the_temperature() -> None:
    assert fit_temperature(np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([0, 1])) == 1.0


def test_logits_are_divided_only_where_that_is_asked_for() -> None:
    assert [each.divisor for each in (Calibration(), Calibration(1.5), Calibration(1.5, is_applied=True))] == [1.0, 1.0, 1.5]


def test_reliability_by_hand() -> None:
    bins = reliability(np.array([0.95, 0.95, 0.97, 0.4]), np.array([True, True, False, True]))
    assert [(b.n, b.share.value) for b in bins] == [(1, 1.0), (3, pytest.approx(2 / 3))]
    assert bins[1].mean_score == pytest.approx((0.95 + 0.95 + 0.97) / 3)
    assert bins[1].share.low < 2 / 3 < bins[1].share.high


@pytest.mark.parametrize("n", [63, 144])
def test_a_temperature_from_few_tiles_does_no_harm(n: int) -> None:
    """Of calibrated logits the plain fit gives temperatures that are worse than none on new tiles, nearly always."""
    new_logits, new_labels = _overconfident(99, 1.0, 20_000)
    losses = []
    for seed in range(40):
        temperature = fit_temperature(*_overconfident(seed, 1.0, n))
        losses.append(log_loss_of(new_logits / temperature, new_labels))
    assert np.mean(losses) < 1.01 * log_loss_of(new_logits, new_labels)


def test_a_temperature_of_few_patients_is_not_believed() -> None:
    logits, labels = _overconfident(2, 4.0, 200)
    assert fit_temperature(logits, labels) > 2
    assert fit_temperature(logits, labels, np.full(200, "p1")) == 1.0


def test_cross_fitting_scales_each_tile_by_what_others_say() -> None:
    """The loss of the tiles that a temperature was fitted on is too low; cross-fitted it is that of new tiles."""
    logits, labels = _overconfident(3, 3.0, 1000)
    raw = Predictions(labels, softmax(logits, axis=1), tuple("ABCDE"))
    scaled = cross_fit(raw)
    assert (scaled.predicted == raw.predicted).all()
    own = softmax(logits / fit_temperature(logits, labels), axis=1)
    assert Predictions(labels, own, raw.classes).losses.mean() < scaled.losses.mean() < 0.8 * raw.losses.mean()
    flipped = labels.copy()
    flipped[0] = (labels[0] + 1) % 5
    again = cross_fit(replace(raw, labels=flipped))
    assert (again.probabilities[0] == scaled.probabilities[0]).all(), "a tile's own label has no part in its temperature"
    assert (again.probabilities != scaled.probabilities).any(), "it has in that of others"


def test_risk_and_coverage_by_hand() -> None:
    confidence = np.array([0.6, 0.9, 0.8, 0.7, 0.8])
    is_wrong = np.array([True, False, False, False, False])
    coverage, risk = risk_coverage_curve(confidence, is_wrong)
    assert coverage.tolist() == [0.2, 0.6, 0.8, 1.0], "the two tiles of 0.8 are kept or left together"
    assert risk.tolist() == [0, 0, 0, 0.2]
