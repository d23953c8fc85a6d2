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
class Compared:
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


def draw_comparison(compared: Compared) -> None:
    """Draw ``differences.png`` and ``comparison.html`` into the folder."""
    title = describe_difference(compared.comparison)
    write_page(compared.folder / "comparison.html", title, "comparison", SECTIONS, compared)


def headline(compared: Compared) -> Values:
    """Which models were compared, and whether one is better."""
    comparison = compared.comparison
    return {"verdict": describe_difference(comparison), "n_tiles": len(comparison.a.labels), "about": compared.about}


def overall(compared: Compared) -> Values:
    """The metrics of both models and their differences."""
    comparison = compared.comparison
    shown = [OVERALL_METRICS[name] for name in comparison.differences]
    return {
        "rows": [
            (each.words, *(f"{value:.4f}" for value in comparison.values[each.name]), signed(comparison.differences[each.name]))
            for each in shown
        ],
        "lower_is_better": [each.words for each in shown if each.is_lower_better],
    }


def per_class(compared: Compared) -> Values:
    """The difference in sensitivity of each class."""
    classes, differences = compared.comparison.a.classes, compared.comparison.sensitivity
    spans = [(each.value, each.low, each.high) for each in differences]
    return {
        "picture": keep_picture(compared.folder / "differences.png", draw_differences(classes, spans, figure="sensitivity")),
        "key": write_key(compared.folder, classes),
        "rows": [(name, signed(each)) for name, each in zip(classes, differences, strict=True)],
    }


def disagreements(compared: Compared) -> Values:
    """The tiles that the models call differently."""
    comparison, images = compared.comparison, compared.images
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


def intervals(compared: Compared) -> Values:
    """How the intervals were made."""
    return {"intervals": compared.comparison.intervals}


SECTIONS: tuple[Section[Compared], ...] = (headline, overall, per_class, disagreements, intervals)
"""In the order of the page."""
