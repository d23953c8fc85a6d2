"""The rate of false alarms is what is stated, and other tiles are found out: simulated, with groups and without."""

import numpy as np
import pytest
from numpy.typing import NDArray

from histo_mlflow.evaluation.drift import FALSE_ALARMS, Drift, compare, find_objection
from histo_mlflow.models.training_summary import CONFIDENCE, STRANGENESS, HeldOut, Space, Tally, TrainingSummary, summarise

N_CLASSES = 3
# Classes score differently, so that a mix of classes that was not corrected for would be an alarm.
_CLASS_MEANS = np.array([[0.0, 2.0, -1.0], [3.0, 6.0, 4.0]])
_SPACE = Space(np.zeros(4, np.float32), np.eye(4, 2, dtype=np.float16), 1.0)


def _draw(
    rng: np.random.Generator, n: int, *, mix: tuple[float, ...] = (0.5, 0.3, 0.2), shift: float = 0.0, heavy: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    called = rng.choice(N_CLASSES, n, p=mix)
    noise = rng.standard_t(4, (2, n)) / np.sqrt(2) if heavy else rng.normal(size=(2, n))
    return _CLASS_MEANS[:, called] + noise + shift, called


def _group(
    rng: np.random.Generator, n: int, spread: float, shift: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Tiles of one patient, who has an own mix of classes and an own look."""
    scores, called = _draw(rng, n, mix=tuple(rng.dirichlet((1.0, 1.0, 1.0))))
    return scores + spread * rng.normal(size=(2, 1)) + shift, called


def _summary(rng: np.random.Generator, n_groups: int, spread: float) -> TrainingSummary:
    drawn = [_group(rng, int(n), spread) for n in rng.integers(5, 80, n_groups)]
    scores = np.concatenate([each[0] for each in drawn], axis=1)
    called = np.concatenate([each[1] for each in drawn])
    names = np.repeat([f"P{k}" for k in range(n_groups)], [len(each[1]) for each in drawn])
    return summarise(_SPACE, [HeldOut(scores, called, names)], N_CLASSES)


def _rate(found: list[Drift]) -> float:
    return float(np.mean([each.is_alarm for each in found]))


@pytest.mark.parametrize("n_tiles", [20, 50, 200, 1000])
@pytest.mark.parametrize("heavy", [False, True])
def test_without_groups_the_rate_of_false_alarms_is_what_is_stated(n_tiles: int, heavy: bool) -> None:
    rng = np.random.default_rng(n_tiles)
    found, of_one_class = [], []
    for _ in range(1500):
        summary = summarise(_SPACE, [HeldOut(*_draw(rng, 300, heavy=heavy), None)], N_CLASSES)
        found.append(compare(summary, Tally.of(*_draw(rng, n_tiles, heavy=heavy), N_CLASSES)))
        lopsided = _draw(rng, n_tiles, mix=(0.02, 0.03, 0.95), heavy=heavy)
        of_one_class.append(compare(summary, Tally.of(*lopsided, N_CLASSES)))
    assert _rate(found) < FALSE_ALARMS
    assert _rate(of_one_class) < FALSE_ALARMS, "another mix of classes is no drift"
    assert _rate(found) > 0.01, "a test that never says anything would hold its rate too"


@pytest.mark.parametrize("n_groups", [3, 8, 40])
@pytest.mark.parametrize("n_tiles", [20, 200])
@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_tiles_of_one_new_patient_hold_the_rate(n_groups: int, n_tiles: int, spread: float) -> None:
    rng = np.random.default_rng([n_groups, n_tiles])
    found = []
    for _ in range(600):
        summary = _summary(rng, n_groups, spread)
        found.append(compare(summary, Tally.of(*_group(rng, n_tiles, spread), N_CLASSES)))
    assert _rate(found) < FALSE_ALARMS


def test_patients_taken_for_independent_tiles_would_be_alarms() -> None:
    """Why groups matter, and why the sentence without them says so."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        parts = [_group(rng, 30, 0.7) for _ in range(10)]
        tiles = HeldOut(np.concatenate([p[0] for p in parts], axis=1), np.concatenate([p[1] for p in parts]), None)
        summary = summarise(_SPACE, [tiles], N_CLASSES)
        found.append(compare(summary, Tally.of(*_group(rng, 200, 0.7), N_CLASSES)))
    assert _rate(found) > 0.5
    assert "a new patient's tiles may be called so too" in next(each for each in found if each.is_alarm).describe()


@pytest.mark.parametrize(("n_tiles", "shift"), [(20, 1.2), (200, 0.5)])
def test_other_tiles_are_found_out(n_tiles: int, shift: float) -> None:
    rng = np.random.default_rng(0)
    summary = summarise(_SPACE, [HeldOut(*_draw(rng, 300), None)], N_CLASSES)
    found = [compare(summary, Tally.of(*_draw(rng, n_tiles, shift=shift), N_CLASSES)) for _ in range(200)]
    assert _rate(found) > 0.9
    of_patients = _summary(rng, 20, 0.3)
    grouped = [compare(of_patients, Tally.of(*_group(rng, n_tiles, 0.3, 2.0), N_CLASSES)) for _ in range(200)]
    assert _rate(grouped) > 0.9
    assert all(each.distance == each.shifts[STRANGENESS] > 0.5 for each in grouped)
    assert "unlike anything this model was tried on" in grouped[0].describe()
    assert "by 20 groups held out; of batches like its own at most 5% are called so)" in grouped[0].describe()


def test_batches_add_up() -> None:
    rng = np.random.default_rng(0)
    summary = _summary(rng, 10, 0.5)
    scores, called = _draw(rng, 90)
    parts = [Tally.of(scores[:, rows], called[rows], N_CLASSES) for rows in (slice(0, 7), slice(7, 50), slice(50, 90))]
    together = compare(summary, parts[0] + parts[1] + parts[2])
    whole = compare(summary, Tally.of(scores, called, N_CLASSES))
    assert together.p_value == pytest.approx(whole.p_value)
    assert together.n_tiles == 90


def test_logits_alone_are_judged_by_confidence_and_the_sentence_says_so() -> None:
    rng = np.random.default_rng(0)
    summary = summarise(_SPACE, [HeldOut(*_draw(rng, 300), None)], N_CLASSES)
    found = []
    for _ in range(1000):
        scores, called = _draw(rng, 50)
        scores[0] = np.nan
        found.append(compare(summary, Tally.of(scores, called, N_CLASSES)))
    assert 0.01 < _rate(found) < FALSE_ALARMS
    assert list(found[0].metrics()) == ["drift/p_value", "drift/distance", "drift/n_tiles", f"drift/{CONFIDENCE}"]
    assert "alone, as this runtime gives no features" in found[0].describe()


def test_what_can_not_be_compared_is_said() -> None:
    rng = np.random.default_rng(0)
    two, many = _summary(rng, 2, 0.5), _summary(rng, 10, 0.5)
    assert "only 2 patients or slides were held out" in (find_objection(two, 100) or "")
    assert "19 tiles are too few" in (find_objection(many, 19) or "")
    assert find_objection(many, 20) is None
    few = summarise(_SPACE, [HeldOut(*_draw(rng, 12), None)], N_CLASSES)
    assert "only 12 tiles were held out" in (find_objection(few, 100) or "")
