import numpy as np
import pytest

from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.gate import judge, object_to
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.evaluation.paired import compare_predictions
from histo_mlflow.evaluation.predictions import Predictions

CLASSES = ("NORM", "STR", "TUM")
LABELS = np.repeat([0, 1, 2], 200)


def _said(shares: tuple[float, float, float], confidence: float = 0.9) -> Predictions:
    """Of each class that share is right, evenly spread, with the same confidence throughout."""
    predicted = LABELS.copy()
    for k, share in enumerate(shares):
        wrong = np.flatnonzero(k == LABELS)[: round(200 * (1 - share))]
        predicted[wrong] = (k + 1) % 3
    rest = (1 - confidence) / 2
    return Predictions(LABELS, np.where(np.eye(3)[predicted] > 0, confidence, rest), CLASSES)


def _judge(old: Predictions, new: Predictions, **options: float) -> tuple[bool, str]:
    verdict = judge(compare_predictions(old, new), GateOptions(**options))
    return verdict.is_passed, verdict.describe()


def test_better_and_equal_pass() -> None:
    old = _said((0.8, 0.8, 0.8))
    assert _judge(old, _said((0.9, 0.9, 0.9)))[0]
    assert _judge(old, old)[0]


def test_worse_is_refused_with_figures() -> None:
    is_passed, words = _judge(_said((0.9, 0.9, 0.9)), _said((0.8, 0.8, 0.8)))
    assert not is_passed
    assert "NOT MET: balanced accuracy -0.1000 (-0.1" in words
    assert _judge(_said((0.9, 0.9, 0.9)), _said((0.8, 0.8, 0.8)), margin=0.2, loss_margin=1.0, class_margin=0.11)[0]


def test_no_class_may_pay_for_the_others() -> None:
    is_passed, words = _judge(_said((0.7, 0.7, 0.9)), _said((0.9, 0.9, 0.8)))
    assert not is_passed
    assert "ok: balanced accuracy" in words
    assert "NOT MET: sensitivity of TUM -0.1000" in words
    assert _judge(_said((0.7, 0.7, 0.9)), _said((0.9, 0.9, 0.8)), class_margin=0.1)[0]


def test_the_same_labels_with_worse_probabilities_are_refused() -> None:
    is_passed, words = _judge(_said((0.8, 0.8, 0.8), 0.9), _said((0.8, 0.8, 0.8), 0.999))
    assert not is_passed
    assert "NOT MET: log loss" in words


def test_margins_are_checked() -> None:
    with pytest.raises(OptionError, match="class_margin=-1"):
        GateOptions(class_margin=-1)


def test_without_baselines_a_first_version_is_objected_to() -> None:
    said, guess = evaluate_predictions(_said((0.9, 0.9, 0.9))), _said((0.5, 0.5, 0.5))
    assert object_to(said, {"mean RGB": guess}) == ""
    assert "the baselines could not be made" in object_to(said, {})
