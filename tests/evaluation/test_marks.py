"""Figures made of HTML: shades that can be read in grey, places on axes."""

import math
import re

import pytest

from histo_mlflow.evaluation.class_curves import style_of, swatch_of
from histo_mlflow.evaluation.gallery import PER_ROW, choose_errors, choose_examples
from histo_mlflow.evaluation.intervals import Estimate
from histo_mlflow.evaluation.marks import _contrast, meaning_of, reach, shade
from tests.evaluation.found import find


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("percent", range(0, 101, 5))
def test_every_cell_can_be_read(percent: int, is_right: bool) -> None:
    ground, ink = (
        tuple(map(int, each)) for each in re.findall(r"rgb\((\d+),(\d+),(\d+)\)", shade(percent / 100, is_right=is_right))
    )
    assert _contrast(ground, ink) >= 4.5, "WCAG 2.2, AA"


def test_a_place_on_an_axis_keeps_within_it() -> None:
    assert reach(Estimate(0.5, 0.25, 0.75)) == {"at": 50.0, "start": 25.0, "width": 50.0}
    assert reach(Estimate(0.9, -0.2, 1.4)) == {"at": 90.0, "start": 0.0, "width": 100.0}
    assert reach(Estimate(0.0, -0.1, 0.1), low=-0.2, high=0.2) == {"at": 50.0, "start": 25.0, "width": 50.0}
    assert reach(Estimate(0.5)) == {"at": 50.0, "start": None, "width": None}
    assert reach(Estimate(math.nan)) == {"at": None, "start": None, "width": None}


def test_nine_classes_are_told_apart_without_colour() -> None:
    assert len({str(style_of(k)["linestyle"]) for k in range(9)}) == 9
    assert len({swatch_of(k)["dashes"] for k in range(9)}) == 9


def test_class_names_are_explained_where_they_are_known() -> None:
    assert meaning_of("MUS") == "smooth muscle"
    assert meaning_of("AC") == ""


def test_rows_of_errors_are_full_and_no_error_is_shown_twice_among_the_pairs() -> None:
    predictions = find().predictions
    rows = choose_errors(predictions)
    assert [len(chosen) for _, chosen in rows[:-1]] == [PER_ROW] * (len(rows) - 1)
    examples = choose_examples(predictions)
    assert [k for k, _ in examples] == [0, 1], "none of a class without tiles"
    assert all((predictions.labels[chosen] == k).all() for k, chosen in examples)
