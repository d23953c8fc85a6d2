import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as reference

from histo_mlflow.evaluation.confusion import count_confusion, epoch_figures
from histo_mlflow.evaluation.metrics import evaluate_predictions

CLASSES = ("a", "b", "c", "d")


def _random(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    scores = rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return labels, probabilities


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("present", [{0, 1, 2, 3}, {0, 2}, {1}])
def test_figures_are_scikit_learns(present: set[int]) -> None:
    labels, probabilities = _random(1)
    keep = np.isin(labels, list(present))
    labels, probabilities = labels[keep], probabilities[keep]
    predicted = probabilities.argmax(axis=1)
    found = {name: figure.value for name, figure in evaluate_predictions(labels, probabilities, CLASSES).overall.items()}

    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert found["matthews_correlation"] == pytest.approx(reference.matthews_corrcoef(labels, predicted))
    assert found["log_loss"] == pytest.approx(reference.log_loss(labels, probabilities, labels=range(4)))
    assert found["brier_score"] == pytest.approx(((probabilities - np.eye(4)[labels]) ** 2).sum(axis=1).mean())
    assert found["cohens_kappa"] == pytest.approx(reference.cohen_kappa_score(labels, predicted))


def test_per_class_by_hand() -> None:
    """Two of three a right, the third called b; both b right; no c."""
    labels = np.array([0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 1, 1, 1])
    a, b, c = evaluate_predictions(labels, np.eye(3)[predicted], ("a", "b", "c")).per_class

    assert (a.n, b.n, c.n) == (3, 2, 0)
    assert (a.sensitivity.value, a.specificity.value, a.ppv.value, a.npv.value) == (2 / 3, 1.0, 1.0, 2 / 3)
    assert a.f1.value == pytest.approx(0.8)
    assert (b.sensitivity.value, b.ppv.value) == (1.0, 2 / 3)
    assert math.isnan(c.sensitivity.value)
    assert math.isnan(c.ppv.value)
    assert (c.specificity.value, c.npv.value) == (1.0, 1.0)


def test_proportions_have_wilson_intervals() -> None:
    labels, probabilities = _random(2)
    evaluation = evaluate_predictions(labels, probabilities, CLASSES)
    right = int((evaluation.predicted == labels).sum())
    expected = binomtest(right, len(labels)).proportion_ci(method="wilson")
    figure = evaluation.overall["accuracy"]
    assert (figure.low, figure.high) == (expected.low, expected.high)


@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1", "log_loss", "brier_score"])
def test_bootstrap_is_that_of_a_plain_loop(name: str) -> None:
    """Resample tiles within classes one loop at a time, and compute the figure anew each time."""
    labels, probabilities = _random(3, n=120)
    found = evaluate_predictions(labels, probabilities, CLASSES, seed=5).overall[name]
    rng = np.random.default_rng(11)
    values = []
    for _ in range(600):
        rows = np.concatenate([rng.choice(np.flatnonzero(labels == k), (labels == k).sum()) for k in range(4)])
        y, p = labels[rows], probabilities[rows]
        values.append(
            {
                "balanced_accuracy": lambda y=y, p=p: reference.balanced_accuracy_score(y, p.argmax(axis=1)),
                "macro_f1": lambda y=y, p=p: reference.f1_score(y, p.argmax(axis=1), average="macro"),
                "log_loss": lambda y=y, p=p: reference.log_loss(y, p, labels=range(4)),
                "brier_score": lambda y=y, p=p: ((p - np.eye(4)[y]) ** 2).sum(axis=1).mean(),
            }[name]()
        )
    low, high = np.quantile(values, [0.025, 0.975])
    # Quantiles of 600 resamples wander by about a tenth of the interval.
    assert found.low == pytest.approx(low, abs=0.15 * (high - low))
    assert found.high == pytest.approx(high, abs=0.15 * (high - low))


def test_intervals_are_seeded_and_hold_their_value() -> None:
    labels, probabilities = _random(4)
    first, again = (evaluate_predictions(labels, probabilities, CLASSES) for _ in range(2))
    assert first.overall == again.overall
    for figure in first.overall.values():
        assert figure.low <= figure.value <= figure.high


def test_one_tile() -> None:
    evaluation = evaluate_predictions(np.array([2]), np.array([[0.1, 0.2, 0.7]]), ("a", "b", "c"))
    assert evaluation.overall["accuracy"].value == 1
    assert evaluation.overall["log_loss"].value == pytest.approx(-math.log(0.7))
    assert evaluation.overall["accuracy"].low < 0.3


def test_epoch_figures_and_confusion_agree() -> None:
    labels, probabilities = _random(6)
    predicted = probabilities.argmax(axis=1)
    figures = epoch_figures(labels, predicted, 4)
    overall = evaluate_predictions(labels, probabilities, CLASSES).overall
    assert figures == {name: overall[name].value for name in ("accuracy", "balanced_accuracy", "macro_f1")}
    assert count_confusion(labels, predicted, 4).tolist() == reference.confusion_matrix(labels, predicted).tolist()
