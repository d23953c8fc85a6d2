"""The page of a comparison of two models, section by section; knows nothing of runs and keeps no number.

A section is a function from the comparison to what its template (``templates/comparison/<name of the function>.html.j2``)
shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.findings import About
from histo_mlflow.evaluation.lettering import write_key
from histo_mlflow.evaluation.metrics import OVERALL_METRICS
from histo_mlflow.evaluation.page import Section, keep_picture, picture_data, write_page
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.evaluation.plots import draw_differences
from histo_mlflow.evaluation.wording import describe_difference, signed

_SHOWN = 18

Values = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ComparisonPage:
    """What the page is drawn from, and the folder of its files.

    Attributes:
        folder: Where to.
        comparison: Of predictions in the order of `images`.
        images: ``(n_tiles, size, size, 3)`` uint8, or None where the tiles are not at hand.
        about: What was compared.
    """

    folder: Path
    comparison: Comparison
    images: NDArray[np.uint8] | None
    about: About


def draw_comparison(page: ComparisonPage) -> None:
    """Draw ``differences.png`` and ``comparison.html`` into the folder."""
    title = describe_difference(page.comparison)
    write_page(page.folder / "comparison.html", title, "comparison", SECTIONS, page)


def headline(page: ComparisonPage) -> Values:
    """Which models were compared, and whether one is better."""
    comparison = page.comparison
    return {"verdict": describe_difference(comparison), "n_tiles": len(comparison.a.labels), "about": page.about}


def overall(page: ComparisonPage) -> Values:
    """The metrics of both models and their differences."""
    comparison = page.comparison
    shown = [OVERALL_METRICS[name] for name in comparison.differences]
    return {
        "rows": [
            (each.words, *(f"{value:.4f}" for value in comparison.values[each.name]), signed(comparison.differences[each.name]))
            for each in shown
        ],
        "lower_is_better": [each.words for each in shown if each.is_lower_better],
    }


def per_class(page: ComparisonPage) -> Values:
    """The difference in sensitivity of each class."""
    classes, differences = page.comparison.a.classes, page.comparison.sensitivity
    spans = [(each.value, each.low, each.high) for each in differences]
    return {
        "picture": keep_picture(page.folder / "differences.png", draw_differences(classes, spans, figure="sensitivity")),
        "key": write_key(page.folder, classes),
        "rows": [(name, signed(each)) for name, each in zip(classes, differences, strict=True)],
    }


def disagreements(page: ComparisonPage) -> Values:
    """The tiles that the models call differently."""
    comparison, images = page.comparison, page.images
    a, b, classes = comparison.a, comparison.b, comparison.a.classes
    shown = [] if images is None else [
        {
            "tile": picture_data(images[row]),
            "caption": f"tile {row}: {classes[a.labels[row]]}; "
            f"A {classes[a.predicted[row]]} ({a.confidence[row]:.2f}), "
            f"B {classes[b.predicted[row]]} ({b.confidence[row]:.2f})",
        }
        for row in comparison.disagree[:_SHOWN]
    ]  # fmt: skip
    return {"comparison": comparison, "n_disagreements": len(comparison.disagree), "shown": shown}


def intervals(page: ComparisonPage) -> Values:
    """How the intervals were made."""
    return {"intervals": page.comparison.intervals}


SECTIONS: tuple[Section[ComparisonPage], ...] = (headline, overall, per_class, disagreements, intervals)
"""In the order of the page."""
