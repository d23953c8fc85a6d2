import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as reference

from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.confusion import count_confusion, epoch_figures
from histo_mlflow.evaluation.intervals import Units
from histo_mlflow.evaluation.metrics import Evaluation, evaluate_predictions, statistics_of
from histo_mlflow.evaluation.predictions import Predictions, match_classes

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
    found = {
        name: figure.value for name, figure in evaluate_predictions(Predictions(labels, probabilities, CLASSES)).overall.items()
    }

    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert found["matthews_correlation"] == pytest.approx(reference.matthews_corrcoef(labels, predicted))
    assert found["log_loss"] == pytest.approx(reference.log_loss(labels, probabilities, labels=range(4)))
    assert found["brier_score"] == pytest.approx(((probabilities - np.eye(4)[labels]) ** 2).sum(axis=1).mean())
    assert found["expected_cost"] == pytest.approx((predicted != labels).mean()), "without TUM every error costs 1"
    assert found["mean_one_vs_rest_accuracy"] == pytest.approx(
        np.mean([reference.accuracy_score(labels == k, predicted == k) for k in range(4)])
    )
    areas = [reference.roc_auc_score(labels == k, probabilities[:, k]) for k in present] if len(present) > 1 else [math.nan]
    assert found["macro_auroc"] == pytest.approx(np.mean(areas), nan_ok=True)
    precisions = [reference.average_precision_score(labels == k, probabilities[:, k]) for k in present]
    assert found["macro_auprc"] == pytest.approx(np.mean(precisions))
    assert found["cohens_kappa"] == pytest.approx(reference.cohen_kappa_score(labels, predicted))


def test_per_class_by_hand() -> None:
    """Two of three a right, the third called b; both b right; no c."""
    labels = np.array([0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 1, 1, 1])
    a, b, c = evaluate_predictions(Predictions(labels, np.eye(3)[predicted], ("a", "b", "c"))).per_class

    assert (a.n, b.n, c.n) == (3, 2, 0)
    value = {of.name: {name: figure.value for name, figure in of.estimates.items()} for of in (a, b, c)}
    assert [value["a"][name] for name in ("sensitivity", "specificity", "ppv", "npv")] == [2 / 3, 1.0, 1.0, 2 / 3]
    assert value["a"]["f1"] == pytest.approx(0.8)
    assert value["a"]["one_vs_rest_accuracy"] == pytest.approx(0.8)
    assert (value["b"]["sensitivity"], value["b"]["ppv"]) == (1.0, 2 / 3)
    for name in ("sensitivity", "ppv", "auroc", "auprc"):
        assert math.isnan(value["c"][name]), name
    assert (value["c"]["specificity"], value["c"]["npv"]) == (1.0, 1.0)


def test_proportions_have_wilson_intervals() -> None:
    labels, probabilities = _random(2)
    evaluation = evaluate_predictions(Predictions(labels, probabilities, CLASSES))
    right = int((evaluation.predictions.predicted == labels).sum())
    expected = binomtest(right, len(labels)).proportion_ci(method="wilson")
    figure = evaluation.overall["accuracy"]
    assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1", "log_loss", "brier_score", "macro_auroc", "macro_auprc"])
def test_the_jackknife_is_that_of_a_plain_loop(name: str) -> None:
    """Leave out one tile after the other, and compute the figure anew each time."""
    labels, probabilities = _random(3, n=60)
    said = Predictions(labels, probabilities, CLASSES)
    (found,) = Units(60).spreads(statistics_of(said, names=[name]))[name]
    compute = {
        "balanced_accuracy": lambda y, p: reference.balanced_accuracy_score(y, p.argmax(axis=1)),
        "macro_f1": lambda y, p: reference.f1_score(y, p.argmax(axis=1), average="macro"),
        "log_loss": lambda y, p: reference.log_loss(y, p, labels=range(4)),
        "brier_score": lambda y, p: ((p - np.eye(4)[y]) ** 2).sum(axis=1).mean(),
        "macro_auroc": lambda y, p: np.mean([reference.roc_auc_score(y == k, p[:, k]) for k in range(4)]),
        "macro_auprc": lambda y, p: np.mean([reference.average_precision_score(y == k, p[:, k]) for k in range(4)]),
    }[name]
    left = np.array([compute(np.delete(labels, k), np.delete(probabilities, k, axis=0)) for k in range(60)])
    assert found.variance == pytest.approx(59 * left.var(), rel=1e-3)


def test_intervals_are_the_same_each_time_and_hold_their_value() -> None:
    labels, probabilities = _random(4)
    first, again = (evaluate_predictions(Predictions(labels, probabilities, CLASSES)) for _ in range(2))
    assert str(first.overall) == str(again.overall)
    assert all(figure.low < figure.value < figure.high for figure in first.overall.values() if figure.has_interval)


@pytest.mark.parametrize("seed", range(5))
def test_ties_are_scikit_learns(seed: int) -> None:
    """Scores of a few values only, so that most tiles tie."""
    rng = np.random.default_rng(seed)
    labels, counts = rng.integers(0, 3, 60), rng.integers(1, 4, (60, 3))
    probabilities = counts / counts.sum(axis=1, keepdims=True)
    for k, of in enumerate(evaluate_predictions(Predictions(labels, probabilities, ("a", "b", "c"))).per_class):
        assert of.estimates["auroc"].value == pytest.approx(reference.roc_auc_score(labels == k, probabilities[:, k]))
        assert of.estimates["auprc"].value == pytest.approx(reference.average_precision_score(labels == k, probabilities[:, k]))


def test_calibration_error_by_hand() -> None:
    """Four tiles at 0.9, of which two are right; two at 0.6, both right: (4 |0.5 - 0.9| + 2 |1 - 0.6|) / 6."""
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    found = evaluate_predictions(Predictions(np.array([0, 0, 1, 1, 0, 0]), probabilities, ("a", "b"))).overall
    assert found["ece_top_label"].value == pytest.approx(0.4)
    assert found["ece_classwise"].value == pytest.approx(0.4), "of two classes both have the same"


def test_risk_and_coverage_by_hand() -> None:
    """The second of four tiles is wrong: error rates of the first 1, 2, 3, 4 tiles are 0, 1/2, 1/3, 1/4."""
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    found = evaluate_predictions(
        Predictions(np.array([0, 1, 0, 0]), np.stack([confidence, 1 - confidence], axis=1), ("a", "b"))
    ).overall
    assert found["aurc"].value == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found["coverage_at_99_accuracy"].value == pytest.approx(1 / 4)


def test_costs_by_hand() -> None:
    """One tumour called normal (10), one called stroma (5), one stroma called tumour (2), one right: 17 / 4."""
    labels, predicted = np.array([2, 2, 1, 0]), np.array([0, 1, 2, 0])
    found = evaluate_predictions(Predictions(labels, np.eye(3)[predicted], ("NORM", "STR", "TUM"))).overall
    assert found["expected_cost"].value == pytest.approx(17 / 4)


def test_groups_widen_the_intervals() -> None:
    """Tiles of a group are copies of each other: the interval must be that of the groups, not of the tiles."""
    labels, probabilities = _random(7, n=60)
    copies = [np.repeat(part, 10, axis=0) for part in (labels, probabilities)]
    groups = np.repeat([f"patient {k}" for k in range(60)], 10)
    single = evaluate_predictions(Predictions(labels, probabilities, CLASSES))
    naive = evaluate_predictions(Predictions(*copies, CLASSES))
    clustered = evaluate_predictions(Predictions(*copies, CLASSES, groups))

    def width(evaluation: Evaluation, name: str) -> float:
        figure = evaluation.overall[name]
        return float(figure.high - figure.low)

    for name in ("balanced_accuracy", "log_loss", "accuracy"):
        assert width(clustered, name) > 2.2 * width(naive, name), name
        assert width(clustered, name) == pytest.approx(width(single, name), rel=0.15), name
    assert "60 whole groups" in clustered.intervals


def test_bad_input_is_refused() -> None:
    labels, probabilities = _random(8, n=5)
    wrong = {
        "sum to": (labels, probabilities * 1.1, CLASSES, None),
        "negative": (labels, probabilities + np.array([-1.0, 1.0, 0, 0]), CLASSES, None),
        "not all numbers": (labels, np.where(np.arange(4) == 1, np.nan, probabilities), CLASSES, None),
        "integers from 0 to 3": (labels + 2, probabilities, CLASSES, None),
        "no tiles": (labels[:0], probabilities[:0], CLASSES, None),
        r"\(n_tiles, 3\)": (labels, probabilities, CLASSES[:3], None),
        "for 5 rows": (labels[:4], probabilities, CLASSES, None),
        "2 groups for 5": (labels, probabilities, CLASSES, np.array(["p", "q"])),
    }
    for words, (y, p, classes, groups) in wrong.items():
        with pytest.raises(RequestError, match=words):
            Predictions(y, p, classes, groups)


def test_classes_are_matched_by_name() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1]])
    assert match_classes(probabilities, ["b", "c", "a"], ("a", "b", "c")).tolist() == [[0.1, 0.7, 0.2]]
    with pytest.raises(RequestError, match="same names"):
        match_classes(probabilities, ["b", "c", "d"], ("a", "b", "c"))


def test_one_tile() -> None:
    evaluation = evaluate_predictions(Predictions(np.array([2]), np.array([[0.1, 0.2, 0.7]]), ("a", "b", "c")))
    assert evaluation.overall["accuracy"].value == 1
    assert evaluation.overall["log_loss"].value == pytest.approx(-math.log(0.7))
    assert evaluation.overall["accuracy"].low < 0.3


def test_epoch_figures_and_confusion_agree() -> None:
    labels, probabilities = _random(6)
    predicted = probabilities.argmax(axis=1)
    figures = epoch_figures(labels, predicted, 4)
    overall = evaluate_predictions(Predictions(labels, probabilities, CLASSES)).overall
    assert figures == {name: overall[name].value for name in ("accuracy", "balanced_accuracy", "macro_f1")}
    assert count_confusion(labels, predicted, 4).tolist() == reference.confusion_matrix(labels, predicted).tolist()
