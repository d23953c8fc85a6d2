"""What holds for every metric: an entry of the table runs through all of this without a line of its own."""

import html
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from histo_mlflow.evaluation.findings import BASELINE_METRICS, CALIBRATION_METRICS
from histo_mlflow.evaluation.intervals import Estimate, Units
from histo_mlflow.evaluation.kept_numbers import read_numbers, write_numbers
from histo_mlflow.evaluation.metrics import CLASS_METRICS, OVERALL_METRICS, Evaluation, evaluate_predictions, statistics_of
from histo_mlflow.evaluation.page import render
from histo_mlflow.evaluation.paired import COMPARED
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.report_sections import show_findings
from histo_mlflow.pipeline import card
from tests.conftest import PROJECT
from tests.evaluation.found import find

ALL = {**OVERALL_METRICS, **CLASS_METRICS}
EVERY = pytest.mark.parametrize("name", ALL)


def _predictions(seed: int = 0, n: int = 90, skill: float = 1.5) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    scores = np.exp(rng.normal(size=(n, 3)) + skill * np.eye(3)[labels])
    return Predictions(labels, scores / scores.sum(axis=1, keepdims=True), ("NORM", "STR", "TUM"))


def _evaluate(predictions: Predictions) -> Evaluation:
    return evaluate_predictions(predictions)


def _of(evaluation: Evaluation, name: str) -> list[Estimate]:
    """Return the estimate of a metric, or those of each class."""
    if name in OVERALL_METRICS:
        return [evaluation.overall[name]]
    return [row.estimates[name] for row in evaluation.per_class]


def _values(predictions: Predictions, name: str) -> list[float]:
    found = Units(len(predictions.labels)).value(statistics_of(predictions, names=[name]))
    return [float(each) for each in np.atleast_1d(found[name])]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return _evaluate(_predictions())


@pytest.fixture(scope="module")
def grouped() -> Evaluation:
    said = _predictions()
    return _evaluate(Predictions(said.labels, said.probabilities, said.classes, np.repeat([f"p{k}" for k in range(30)], 3)))


def test_names_are_unique_and_those_that_others_use_exist() -> None:
    assert len(ALL) == len(OVERALL_METRICS) + len(CLASS_METRICS)
    assert len({metric.words for metric in ALL.values()}) == len(ALL)
    assert next(iter(OVERALL_METRICS)) == "balanced_accuracy", "the headline"
    assert {*COMPARED, *CALIBRATION_METRICS, *BASELINE_METRICS, *card._HEADLINES} <= set(OVERALL_METRICS)


@EVERY
def test_its_interval_holds_its_value(evaluation: Evaluation, grouped: Evaluation, name: str) -> None:
    for found in (*_of(evaluation, name), *_of(grouped, name)):
        assert math.isfinite(found.value)
        assert found.low < found.value <= found.high or found.low <= found.value < found.high or not found.has_interval


@EVERY
def test_a_proportion_has_the_interval_of_wilson(evaluation: Evaluation, name: str) -> None:
    proportion = ALL[name].proportion
    if proportion is not None:
        hits, n = proportion(evaluation.predictions.confusion)
        assert [each.value for each in _of(evaluation, name)] == (np.atleast_1d(hits) / n).tolist()
        assert all(0 <= each.low <= each.value <= each.high <= 1 for each in _of(evaluation, name) if each.has_interval)


@EVERY
def test_the_order_of_tiles_and_of_classes_does_not_matter(name: str) -> None:
    said = _predictions(1)
    shuffled = np.random.default_rng(0).permutation(len(said.labels))
    order = [2, 0, 1]
    of_tiles = Predictions(said.labels[shuffled], said.probabilities[shuffled], said.classes)
    classes = tuple(said.classes[k] for k in order)
    of_classes = Predictions(np.argsort(order)[said.labels], said.probabilities[:, order], classes)
    values = _values(said, name)
    assert _values(of_tiles, name) == pytest.approx(values)
    in_order = values if name in OVERALL_METRICS else [values[k] for k in order]
    assert _values(of_classes, name) == pytest.approx(in_order)


@EVERY
def test_a_tile_that_is_drawn_twice_counts_as_two(name: str) -> None:
    said = _predictions(2)
    times = np.random.default_rng(0).integers(0, 4, len(said.labels))
    drawn = statistics_of(said, names=[name])(times[None].astype(np.float32))[name][0]
    repeated = Predictions(np.repeat(said.labels, times), np.repeat(said.probabilities, times, axis=0), said.classes)
    assert np.atleast_1d(drawn).tolist() == pytest.approx(_values(repeated, name), abs=1e-6)


@EVERY
def test_a_better_model_has_a_better_value(name: str) -> None:
    weak, strong = _values(_predictions(3, 600), name), _values(_predictions(3, 600, skill=4.0), name)
    for before, after in zip(weak, strong, strict=True):
        assert after < before if ALL[name].is_lower_better else after > before


@EVERY
@pytest.mark.parametrize("present", [[0, 0, 0], [1, 1, 2, 2], [2]])
def test_without_tiles_of_a_class_it_is_a_number_or_not_defined(name: str, present: list[int]) -> None:
    for found in _of(_evaluate(Predictions(np.array(present), np.full((len(present), 3), 1 / 3), ("a", "b", "c"))), name):
        assert math.isfinite(found.low) == math.isfinite(found.high)
        assert found.is_defined or not found.has_interval


@dataclass(frozen=True)
class _Shown:
    """An evaluation, what is read back of it, its files and sections of its page as text."""

    evaluation: Evaluation
    kept: Evaluation
    folder: Path
    overall: str
    per_class: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> _Shown:
    folder, findings = tmp_path_factory.mktemp("evaluation"), find()
    write_numbers(folder, findings)
    values = show_findings(folder, findings)
    sections = [html.unescape(render(f"report/{section}.html.j2", values)) for section in ("overall", "class_figures")]
    return _Shown(findings.evaluation, read_numbers(folder).evaluation, folder, *sections)


@EVERY
def test_it_is_on_the_page_in_files_and_in_the_docs(shown: _Shown, name: str) -> None:
    words = ALL[name].words
    assert str(_of(shown.kept, name)) == str(_of(shown.evaluation, name))
    assert (words in (shown.overall if name in OVERALL_METRICS else shown.per_class)) is ALL[name].is_on_page
    file = "summary.json" if name in OVERALL_METRICS else "per_class.csv"
    assert name in (shown.folder / file).read_text()
    documented = words.partition(" (")[0].partition(",")[0].lower()
    assert documented in (PROJECT / "docs" / "evaluation.md").read_text().lower()
