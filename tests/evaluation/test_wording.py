"""What strikes in results is said of all that it holds for: of classes and errors that tie, of one tile and of many."""

import html
from dataclasses import replace
from pathlib import Path

import numpy as np

from histo_mlflow.evaluation.caveats import learnt_from
from histo_mlflow.evaluation.findings import Details, Findings
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.report_sections import draw_report
from histo_mlflow.evaluation.wording import remarks_on
from tests.evaluation.found import find


def _found(confusion: list[list[int]], classes: tuple[str, ...] = ("A", "STR", "C")) -> Findings:
    """Return what is found where each tile of a row's class is called the column's as often as it says."""
    pairs = [(true, called) for true, row in enumerate(confusion) for called, n in enumerate(row) for _ in range(n)]
    labels, called = np.array(pairs).T
    said = Predictions(labels, 0.7 * np.eye(len(classes))[called] + 0.3 / len(classes), classes)
    return replace(find(), evaluation=evaluate_predictions(said), indices=np.arange(len(labels)))


def test_one_weakest_class_and_one_commonest_error_are_named() -> None:
    weakest, commonest, *_ = remarks_on(_found([[9, 1, 0], [0, 5, 5], [0, 0, 10]]))
    assert weakest == "Weakest class: STR (tumour-associated stroma), of which 50.0\u00a0% are found."
    assert commonest == "Commonest error: STR called C, 5 tiles, 83\u00a0% of all errors."


def test_classes_and_errors_that_tie_are_all_named() -> None:
    weakest, commonest, *_ = remarks_on(_found([[4, 2, 0], [1, 2, 0], [0, 2, 10]]))
    assert weakest.startswith(
        "2 classes are equally weak: A, of which 66.7\u00a0% are found; STR (tumour-associated stroma), of "
    )
    assert commonest == "2 errors are equally common, 2 tiles or 40\u00a0% of all errors each: A called STR; C called STR."
    never, commonest, *_ = remarks_on(_found([[0, 1, 1], [1, 0, 1], [1, 0, 0]]))
    assert never == "Never found: A, STR (tumour-associated stroma), C."
    assert commonest.startswith("5 errors are equally common, 1 tile or 20\u00a0% of all errors each: A called STR; ")
    assert commonest.endswith("; STR called C and 1 more.")
    assert remarks_on(_found([[3, 0, 0], [0, 3, 0], [0, 0, 3]]))[0] == "Every tile got its own class."


def test_a_page_counts_in_plain_words_and_claims_no_interval_that_is_not_there(tmp_path: Path) -> None:
    found = _found([[2, 0, 0], [1, 0, 0], [0, 0, 1]], ("A", "B", "C"))
    draw_report(tmp_path, found)
    page = html.unescape((tmp_path / "report.html").read_text())
    assert "1 tiles" not in page
    assert "A, B, C: as the tiles are labelled" in " ".join(page.replace("<bdi>", "").replace("</bdi>", "").split())
    of_few = page.partition('id="per_class"')[2].partition("</section>")[0]
    assert "bars: 95 % intervals" not in of_few
    assert "In hindsight, knowing the labels of these tiles, not even the surest of them could be kept with 99 % right." in page
    draw_report(tmp_path, find())
    assert "bars: 95 % intervals" in (tmp_path / "report.html").read_text()


def test_tiles_that_were_learnt_from_are_no_test_tiles_of_the_data_flow(tmp_path: Path) -> None:
    flow = {"training": np.array([3, 4, 0]), "validation": np.array([1, 1, 0]), "test": np.array([4, 5, 0])}
    for caveats, words in (((), ">test, scored here</th>"), ((learnt_from(),), ">scored here: these very tiles</th>")):
        draw_report(tmp_path, replace(find(), details=Details(flow=flow, caveats=caveats)))
        assert words in (tmp_path / "report.html").read_text()
