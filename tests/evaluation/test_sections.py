"""What holds for every section of a page: it can be shown with little and with everything, and is in its page once."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histo_mlflow.evaluation import comparison_sections, page, report_sections, runs_sections
from histo_mlflow.evaluation.curves import draw_curves
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.gallery import Album
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.page import render
from histo_mlflow.evaluation.paired import compare_predictions
from histo_mlflow.evaluation.runs_sections import ShownRun
from tests.evaluation.found import find, find_everything, show_errors

TEMPLATES = Path(page.__file__).parent / "templates"


def _check(html: str) -> None:
    assert len(re.findall("<h[12]>", html)) == 1, "one heading"
    assert not re.findall(r"<script|(?:src|href)=[\"'](?!data:|#)", html), "nothing may be fetched"
    assert "<b>" not in html, "names from the data must be escaped"
    assert not re.search(r"\bnan\b|None", html), "what is not there is said in words"
    for tag in ("table", "div", "ul", "p", "dl", "details"):
        assert len(re.findall(f"<{tag}[ >]", html)) == html.count(f"</{tag}>"), tag


@pytest.fixture(scope="module", params=[find, find_everything])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = request.param()
    if request.param is find:
        return report_sections.show_findings(tmp_path_factory.mktemp("report"), found)
    rows = show_errors(found)
    curves = [draw_curves({"val/loss": [1.0, 0.5]}, aug_cutoff=1, best_epoch=2, title="", figures=["loss"])]
    return report_sections.show_findings(tmp_path_factory.mktemp("report"), found, Album(rows, rows, rows), curves)


@pytest.mark.parametrize("section", report_sections.SECTIONS)
def test_a_section_of_the_report_shows_little_and_everything(report: dict[str, Any], section: str) -> None:
    shown = render(f"report/{section}.html.j2", report)
    if section in {"folds", "curves", "seen", "examples"} and report["folds"] is None:
        assert not shown.strip(), "left out only where there is nothing to show"
    else:
        _check(shown)


@pytest.mark.parametrize("has_images", [True, False])
@pytest.mark.parametrize("section", comparison_sections.SECTIONS)
def test_a_section_of_the_comparison_shows_little_and_everything(tmp_path: Path, section: str, has_images: bool) -> None:
    predictions, about = find().predictions, replace(find().about, models=("models:/m/1", "models:/m/2"))
    comparison = compare_predictions(predictions, replace(predictions, probabilities=predictions.probabilities[::-1]))
    images = np.zeros((40, 8, 8, 3), np.uint8) if has_images else None
    _check(render(f"comparison/{section}.html.j2", comparison_sections.show_comparison(tmp_path, comparison, about, images)))


@pytest.mark.parametrize("has_learnt", [True, False])
@pytest.mark.parametrize("section", runs_sections.SECTIONS)
def test_a_section_of_the_page_of_runs_shows_little_and_everything(section: str, has_learnt: bool) -> None:
    history = {f"{split}/{name}": [1.0, 0.5] for split in ("train", "val") for name in ("loss", "accuracy")}

    def curves() -> list[Any]:
        return [draw_curves(history, aug_cutoff=1, best_epoch=2, title="", figures=[name]) for name in ("loss", "accuracy")]

    runs = [ShownRun(name, find(), curves() if has_learnt else ()) for name in ("one", "<b>two")]
    shown = render(f"runs/{section}.html.j2", runs_sections.show_runs(runs, "two runs"))
    if section == "curves" and not has_learnt:
        assert not shown.strip()
    else:
        _check(shown)


def _headline(runs: list[ShownRun], whole: ShownRun | None = None) -> str:
    return render("runs/headline.html.j2", runs_sections.show_runs(runs, "runs", whole))


def _with_classes(classes: tuple[str, ...]) -> Findings:
    found = find()
    predictions = replace(found.predictions, classes=classes)
    return replace(found, evaluation=evaluate_predictions(predictions))


def test_runs_are_averaged_only_where_they_tell_the_same_classes_apart() -> None:
    one = ShownRun("one", find())
    assert "Mean 0.225, standard deviation 0.000 over 2 runs. All were scored on the same tiles" in _headline([one, one])
    of_other_set = replace(find(), about=replace(find().about, fingerprint="e" * 64))
    assert "They were scored on different tiles, of different sets:" in _headline([one, ShownRun("two", of_other_set)])
    of_same_set = replace(find(), indices=find().indices + 1)
    assert "They were scored on different tiles: part" in _headline([one, ShownRun("two", of_same_set)])
    shown = _headline([one, ShownRun("two", _with_classes(("AC", "S", "T")))])
    assert "The runs tell different classes apart: their figures can't be averaged or compared." in shown
    assert "Mean" not in shown
    assert "<dd>tiles.npz</dd>" in shown
    assert 'AC, S, T <span class="quiet">(two)</span>' in shown


def test_classes_that_no_other_run_has_get_no_panel() -> None:
    one = ShownRun("one", find())

    def show(*classes: str) -> str:
        shown = runs_sections.show_runs([one, ShownRun("two", _with_classes(classes))], "runs")
        return render("runs/classes.html.j2", shown)

    assert not show("AC", "S", "T").strip()
    partly = show("ADI", "S", "T")
    assert re.findall("<h3><bdi>(.*?)</bdi>", partly) == ["ADI"]
    assert "Classes that only one run has are in its own report." in partly


def test_folds_are_shown_below_the_verdict_on_all_of_them() -> None:
    pooled = replace(find(), about=replace(find().about, split="oof", date="2026-01-02 03:04 UTC"))
    shown = _headline([ShownRun(f"fold {k}", find()) for k in (1, 2)], ShownRun("tiles lite0 2-fold", pooled))
    _check(shown)
    assert shown.index("All folds together: ") < shown.index("fold 1")
    assert shown.index("Weakest class: ") < shown.index("fold 1"), "of all folds"
    for words in (
        "Each fold is scored on one of 2 parts of the tiles",
        "<strong>Next:</strong> The figures of all folds together are in the report of the cross-validation: "
        "<code>evaluation/oof/report.html</code>",
        "<dt>Run</dt><dd>tiles lite0 2-fold</dd>",
        "<dd>tiles.npz</dd>",
        "2026-<wbr>01-<wbr>02 03:04 UTC",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("folder", "sections"),
    [
        ("report", report_sections.SECTIONS),
        ("comparison", comparison_sections.SECTIONS),
        ("runs", runs_sections.SECTIONS),
    ],
)
def test_each_template_is_that_of_one_section(folder: str, sections: tuple[str, ...]) -> None:
    assert sorted(f"{name}.html.j2" for name in sections) == sorted(file.name for file in (TEMPLATES / folder).iterdir())
