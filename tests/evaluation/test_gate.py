from dataclasses import replace

import numpy as np
import pytest

from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.evidence import Layout, gain_in_balanced_accuracy
from histo_mlflow.evaluation.findings import About, Details, Findings, evaluate_baselines
from histo_mlflow.evaluation.gate import alpha_of_look, judge, object_to
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
    assert "NOT MET: balanced accuracy -0.1000, above -0.1" in words
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


def _with_patients(said: Predictions, patients: np.ndarray) -> Predictions:
    return replace(said, groups=patients.astype(str))


def test_nine_tiles_decide_nothing() -> None:
    labels = np.arange(9)
    right = Predictions(labels, np.eye(9), tuple("ABCDEFGHI"))
    is_passed, words = _judge(right, right)
    assert not is_passed
    assert "too few tiles of A (1 tiles), B (1 tiles)" in words


def test_a_class_without_tiles_is_refused_by_name() -> None:
    rows = LABELS != 2
    said = _said((0.9, 0.9, 0.9))
    without = Predictions(LABELS[rows], said.probabilities[rows], CLASSES)
    is_passed, words = _judge(without, without)
    assert (is_passed, words) == (False, "NOT MET: too few tiles of TUM (0 tiles): each class needs 5 at least")


def test_one_patient_of_each_class_decides_nothing() -> None:
    said = _with_patients(_said((0.9, 0.9, 0.9)), LABELS)
    is_passed, words = _judge(said, said)
    assert not is_passed
    assert "too few patients: NORM (1), STR (1), TUM (1)" in words


def test_one_large_patient_counts_as_hardly_more_than_one() -> None:
    said = _with_patients(_said((0.9, 0.9, 0.9)), np.where(np.arange(600) % 200 < 195, 0, np.arange(600) % 5 + 1))
    assert "patients of equal size, 10 are needed" in _judge(said, said)[1]


def test_what_tiles_would_pass_patients_may_not() -> None:
    old = _said((0.9, 0.9, 0.9))
    assert _judge(old, old)[0]
    assert not _judge(*[_with_patients(old, np.arange(600) % 20)] * 2)[0]
    assert _judge(*[_with_patients(old, np.arange(600) % 200)] * 2)[0]


def test_a_candidate_five_points_worse_never_passes_on_nine_tiles() -> None:
    """Not even where the rule of too few tiles is left aside."""
    rng, labels = np.random.default_rng(0), np.arange(9)
    for study in range(40):
        old, new = (np.where(rng.random(9) < share, labels, (labels + 1) % 9) for share in (0.97, 0.92))
        said = [Predictions(labels, np.eye(9)[called], tuple("ABCDEFGHI")) for called in (old, new)]
        assert gain_in_balanced_accuracy(*said).p_value(0.01) > 0.1
        assert study % 10 or not _judge(*said)[0]


def test_equal_models_are_not_refused_for_a_class() -> None:
    """One error more is five points of a class of twenty tiles, and shows nothing."""
    labels = np.repeat(np.arange(3), 20)
    called = labels.copy()
    called[0] = 1
    old, new = (Predictions(labels, np.eye(3)[each], CLASSES) for each in (labels, called))
    assert "ok: sensitivity of NORM -0.0500" in _judge(old, new)[1]


@pytest.mark.parametrize("n", [5, 20])
def test_a_lost_class_never_passes(n: int) -> None:
    labels = np.repeat([0, 1, 2], [900, 900, n])
    called = np.where(labels == 2, 0, labels)
    old, new = (Predictions(labels, np.eye(3)[each], CLASSES) for each in (labels, called))
    assert "NOT MET: sensitivity of TUM -1.0000" in _judge(old, new, margin=1.0, loss_margin=99.0)[1]


def test_later_decisions_are_stricter_and_all_together_stay_at_five_percent() -> None:
    alphas = [alpha_of_look(look) for look in range(1, 60)]
    assert alphas[0] == 0.025
    assert sum(alphas) <= 0.05
    old = _said((0.9, 0.9, 0.9))
    verdicts = [judge(compare_predictions(old, old), GateOptions(), alpha).is_passed for alpha in alphas[:10]]
    assert verdicts[0]
    assert not verdicts[-1]


def test_the_need_is_said_beforehand() -> None:
    words = Layout(np.repeat(np.arange(9), 20), tuple("ABCDEFGHI")).describe_need(0.01, 0.025)
    assert words.startswith("you have 180; needed are about 2,200 tiles")
    assert "only a better candidate" in Layout(LABELS, CLASSES).describe_need(0, 0.025)


def test_margins_are_checked() -> None:
    with pytest.raises(OptionError, match="class_margin=-1"):
        GateOptions(class_margin=-1)


def test_without_baselines_a_first_version_is_objected_to() -> None:
    about = About(split="val", source="s", fingerprint="f", is_synthetic=False, tile_size_px=28, models=("m",), looks=0)
    evaluation, baselines = evaluate_predictions(_said((0.9, 0.9, 0.9))), evaluate_baselines({"RGB": _said((0.5, 0.5, 0.5))})

    def object_with(details: Details, about: About = about) -> str:
        return object_to(Findings(evaluation, np.arange(600), about, details))

    assert object_with(Details(baselines=baselines)) == ""
    assert "no baselines are at hand" in object_with(Details())
    assert object_with(Details(), replace(about, tile_size_px=0)) == "", "of features no colour is known"
