import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.comparison_sections import draw_comparison
from histo_mlflow.evaluation.findings import About
from histo_mlflow.evaluation.gate import judge
from histo_mlflow.evaluation.kept_numbers import read_comparison, write_comparison
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.evaluation.paired import Comparison, compare_predictions, mcnemar, permute_groups
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.verdict import verdict_on_difference

CLASSES = ("ADI", "TUM", "<b>")


def _said(labels: np.ndarray, skill: float, shared: np.ndarray, seed: int) -> Predictions:
    scores = skill * np.eye(3)[labels] + shared + 0.3 * np.random.default_rng(seed).normal(size=shared.shape)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Predictions(labels, probabilities, CLASSES)


def _verdict(comparison: Comparison) -> str:
    return verdict_on_difference(comparison, judge(comparison, GateOptions())).sentence


@pytest.fixture(scope="module")
def pair() -> tuple[Predictions, Predictions]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    shared = rng.normal(size=(400, 3))
    return _said(labels, 1.0, shared, 1), _said(labels, 2.0, shared, 2)


def test_a_better_model_is_found_better(pair: tuple[Predictions, Predictions]) -> None:
    found = compare_predictions(*pair)
    assert found.differences["balanced_accuracy"].low > 0
    assert found.differences["log_loss"].high < 0
    assert found.p_value < 0.001
    assert _verdict(found).startswith("B is better")
    assert _verdict(compare_predictions(pair[1], pair[0])).startswith("A is better")


def test_a_model_does_not_differ_from_itself(pair: tuple[Predictions, Predictions]) -> None:
    found = compare_predictions(pair[0], pair[0])
    assert all(f.value == 0 and not f.has_interval for f in found.differences.values()), "an interval of no width is none"
    assert (found.p_value, len(found.disagree)) == (1.0, 0)
    assert "don't tell them apart" in _verdict(found)


def test_the_interval_of_a_mean_difference_is_that_of_students_paired_test(pair: tuple[Predictions, Predictions]) -> None:
    a, b = pair
    found = compare_predictions(a, b).differences["log_loss"]
    expected = ttest_rel(b.losses, a.losses).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.1 * (expected.high - expected.low))


@pytest.mark.parametrize("n", [9, 10])
def test_a_difference_needs_ten_tiles_that_only_one_gets_right(n: int) -> None:
    labels = np.repeat([0, 1, 2], 40)
    called = labels.copy()
    called[:n] = 1
    a, b = (Predictions(labels, 0.85 * np.eye(3)[each] + 0.05, CLASSES) for each in (labels, called))
    found = compare_predictions(a, b)
    shown = {name for name, each in found.differences.items() if each.has_interval}
    assert shown == (set(found.differences) - {"macro_auroc", "ece_top_label"} if n == 10 else set())
    assert [each.has_interval for each in found.sensitivity] == [n == 10, False, False]
    assert "10 tiles that only one of the two gets right" in found.intervals
    assert "Calibration error, predicted class" in found.intervals


def test_few_patients_tell_no_two_models_apart(pair: tuple[Predictions, Predictions]) -> None:
    groups = np.array([f"p{k % 5}" for k in range(400)])
    a, b = (Predictions(each.labels, each.probabilities, CLASSES, groups) for each in pair)
    found = compare_predictions(a, b)
    assert not any(each.has_interval for each in (*found.differences.values(), *found.sensitivity))
    assert "20 groups are needed" in found.intervals
    assert "(no interval)" in _verdict(found)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(3, 12) == pytest.approx(binomtest(3, 15).pvalue)
    assert mcnemar(1, 1) == 1.0


def test_equal_models_whose_errors_come_by_patients_are_not_told_apart() -> None:
    """Errors of either come in whole patients: McNemar's test rejects in half of the studies."""
    rng, rejected = np.random.default_rng(0), []
    for _ in range(40):
        wrong = (rng.random((2, 10, 1)) < 0.15) & (rng.random((2, 10, 30)) < 0.6)
        labels, patients = np.zeros(300, np.int64), np.repeat(np.arange(10), 30).astype(str)
        said = [Predictions(labels, np.eye(3)[each.ravel().astype(int)], CLASSES, patients) for each in wrong]
        only = [int((x.is_wrong & ~y.is_wrong).sum()) for x, y in (said, said[::-1])]
        rejected.append((mcnemar(*only) <= 0.05, permute_groups(*said) <= 0.05))
    of_tiles, of_patients = np.mean(rejected, axis=0)
    assert of_tiles > 0.4
    assert of_patients <= 0.05


def test_groups_are_exchanged_whole() -> None:
    labels, patients = np.zeros(6, np.int64), np.array(list("aabbcc"))
    better, worse = (Predictions(labels, np.eye(3)[[k] * 6], CLASSES, patients) for k in (0, 1))
    found = compare_predictions(better, worse)
    assert (found.p_value, found.test) == (pytest.approx(2 / 2**3), "permutation test over whole groups")
    assert compare_predictions(better, better).p_value == 1


def test_other_tiles_are_refused(pair: tuple[Predictions, Predictions]) -> None:
    a, b = pair
    other = Predictions((b.labels + 1) % 3, b.probabilities, CLASSES)
    with pytest.raises(RequestError, match="same tiles"):
        compare_predictions(a, other)


def test_page(pair: tuple[Predictions, Predictions], tmp_path: Path) -> None:
    found = compare_predictions(*pair)
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 3), dtype=np.uint8)
    about = About(source="tiles.npz", fingerprint="f" * 64, models=("models:/m/1", "models:/m/2"), looks=6, is_synthetic=True)
    write_comparison(tmp_path, found, about)
    assert not (tmp_path / "comparison.html").exists(), "numbers come before pictures"
    draw_comparison(tmp_path, found, about, images)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["differences"]["balanced_accuracy"]["value"] == pytest.approx(
        content["values"]["balanced_accuracy"]["b"] - content["values"]["balanced_accuracy"]["a"]
    )
    assert content["n_disagreements"] == (pair[0].predicted != pair[1].predicted).sum()
    page = (tmp_path / "comparison.html").read_text()
    assert "B is better" in page
    assert "<b>" not in page
    assert 'src="http' not in page
    assert page.count("data:image/png;base64") == 18

    kept, kept_about, _ = read_comparison(tmp_path)
    draw_comparison(tmp_path, kept, kept_about, images)
    assert (tmp_path / "comparison.html").read_text() == page, "drawn from what is kept, it is the same"
    draw_comparison(tmp_path, found, about)
    assert "data:image/png;base64" not in (tmp_path / "comparison.html").read_text()
