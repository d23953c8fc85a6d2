"""The page of a comparison of two models; knows nothing of runs and keeps no number.

A section of the page is a template, ``templates/comparison/<section>.html.j2``; all are filled with the same values.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.lettering import write_key
from histo_mlflow.evaluation.confusion import ratio, sensitivity
from histo_mlflow.evaluation.findings import About
from histo_mlflow.evaluation.gate import first_ruling
from histo_mlflow.evaluation.intervals import Estimate
from histo_mlflow.evaluation.metrics import OVERALL_METRICS
from histo_mlflow.evaluation.page import keep_picture, write_page
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.evaluation.plots import draw_differences
from histo_mlflow.evaluation.verdict import Verdict, verdict_on_difference
from histo_mlflow.evaluation.wording import describe_weakest, signed
from histo_mlflow.tiles.pixels import Pixels

SECTIONS = ("headline", "overall", "per_class", "disagreements", "intervals")
"""In the order of the page."""
_SHOWN = 18


def draw_comparison(
    folder: Path,
    comparison: Comparison,
    about: About,
    images: Pixels | None = None,
    verdicts: Sequence[Verdict] = (),
    names: NDArray[np.str_] | None = None,
) -> None:
    """Draw ``differences.png`` and ``comparison.html`` into the folder.

    Args:
        folder: Where to.
        comparison: Of predictions in the order of `images`.
        about: What was compared.
        images: ``(n_tiles, size, size, 3)`` uint8, or None where the tiles are not at hand.
        verdicts: On the difference, on A and on B; none of a version that has kept none.
        names: ``(n_tiles,)`` files of the tiles, or None.
    """
    shown = show_comparison(folder, comparison, about, images, verdicts, names)
    write_page(folder / "comparison.html", "comparison", SECTIONS, shown)


def show_comparison(
    folder: Path,
    comparison: Comparison,
    about: About,
    images: Pixels | None,
    verdicts: Sequence[Verdict] = (),
    names: NDArray[np.str_] | None = None,
) -> dict[str, Any]:
    """Draw the picture into `folder`, and return what the sections show."""
    classes = comparison.a.classes
    sensitivities = [
        [Estimate(value) for value in ratio(*sensitivity(model.confusion)).tolist()] for model in (comparison.a, comparison.b)
    ]
    keep_picture(folder / "differences.png", draw_differences(classes, comparison.sensitivity))
    write_key(folder, classes)
    return {
        "title": f"Balanced accuracy of B minus A: {signed(comparison.differences['balanced_accuracy'])}",
        "verdict": verdicts[0] if verdicts else verdict_on_difference(comparison, first_ruling(comparison)),
        "each": verdicts[1:],
        "comparison": comparison,
        "about": about,
        "classes": classes,
        "lower_is_better": [
            OVERALL_METRICS[name].words for name in comparison.differences if OVERALL_METRICS[name].is_lower_better
        ],
        "reach_of": _reach_of(comparison),
        "sensitivities": sensitivities,
        "weakest": [describe_weakest(dict(zip(classes, of_model, strict=True))) for of_model in sensitivities],
        "images": images,
        "names": names,
        "shown": [] if images is None else comparison.disagree[:_SHOWN].tolist(),
    }


def _reach_of(comparison: Comparison) -> float:
    """Return how far from 0 the axis of differences in sensitivity goes, in whole tenths."""
    ends = [abs(end) for each in comparison.sensitivity for end in (each.value, each.low, each.high) if math.isfinite(end)]
    return max(0.1, math.ceil(10 * max(ends, default=0.1)) / 10)
