"""What holds for every section of a page: it can be shown with little and with everything, and is in its page once."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from histo_mlflow.evaluation import comparison_sections, page, report_sections
from histo_mlflow.evaluation.comparison_sections import ComparisonPage
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.page import Section, render
from histo_mlflow.evaluation.paired import compare_predictions
from histo_mlflow.evaluation.report_sections import ReportPage
from tests.evaluation.found import find, find_everything, show_errors

TEMPLATES = Path(page.__file__).parent / "templates"


def _name(section: Section[ReportPage] | Section[ComparisonPage]) -> str:
    return section.__name__


def _check(html: str) -> None:
    assert len(re.findall("<h[12]>", html)) == 1, "one heading"
    assert not re.findall(r"<script|(?:src|href)=[\"'](?!data:)", html), "nothing may be fetched"
    assert "<b>" not in html, "names from the data must be escaped"
    assert not re.search(r"\bnan\b|None", html), "what is not there is said in words"
    for tag in ("table", "div", "ul", "p", "dl", "details"):
        assert len(re.findall(f"<{tag}[ >]", html)) == html.count(f"</{tag}>"), tag


@pytest.mark.parametrize("finding", [find, find_everything])
@pytest.mark.parametrize("section", report_sections.SECTIONS, ids=_name)
def test_a_section_of_the_report_shows_little_and_everything(
    tmp_path: Path, section: Section[ReportPage], finding: Callable[[], Findings]
) -> None:
    found = finding()
    values = section(ReportPage(tmp_path, found, show_errors(found) if finding is find_everything else ()))
    if values is None:
        assert finding is find, "left out only where there is nothing to show"
    else:
        _check(render(f"report/{section.__name__}.html.j2", values))


@pytest.mark.parametrize("has_images", [True, False])
@pytest.mark.parametrize("section", comparison_sections.SECTIONS, ids=_name)
def test_a_section_of_the_comparison_shows_little_and_everything(
    tmp_path: Path, section: Section[ComparisonPage], has_images: bool
) -> None:
    predictions, about = find().predictions, replace(find().about, models=("models:/m/1", "models:/m/2"))
    comparison = compare_predictions(predictions, replace(predictions, probabilities=predictions.probabilities[::-1]))
    values = section(ComparisonPage(tmp_path, comparison, np.zeros((40, 8, 8, 3), np.uint8) if has_images else None, about))
    assert values is not None
    _check(render(f"comparison/{section.__name__}.html.j2", values))


@pytest.mark.parametrize(("folder", "module"), [("report", report_sections), ("comparison", comparison_sections)])
def test_each_template_is_that_of_one_section(folder: str, module: object) -> None:
    names = [section.__name__ for section in module.SECTIONS]  # type: ignore[attr-defined]
    assert sorted(f"{name}.html.j2" for name in names) == sorted(file.name for file in (TEMPLATES / folder).iterdir())
