"""A comparison of two models as files: one page, tables, a figure and the tiles on which they disagree."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.evaluation.comparison import COMPARED, Comparison
from histo_mlflow.evaluation.figures import draw_differences
from histo_mlflow.evaluation.intervals import CONFIDENCE, Figure
from histo_mlflow.evaluation.lettering import write_key
from histo_mlflow.evaluation.page import picture_data, png_of, render
from histo_mlflow.evaluation.wording import OVERALL_NAMES, as_json

_SHOWN = 18


@dataclass(frozen=True)
class OfModels:
    """Which models were compared on which tiles, and how often models were scored on these, this time included."""

    a: str
    b: str
    source: str
    fingerprint: str
    looks: int
    is_synthetic: bool


def write_comparison(folder: Path, comparison: Comparison, images: NDArray[np.uint8], about: OfModels) -> None:
    """Write ``comparison.html``, ``comparison.json``, ``differences.png`` and ``disagreements.csv``.

    Args:
        folder: Where to.
        comparison: Of predictions in the order of `images`.
        images: ``(n_tiles, size, size, 3)`` uint8.
        about: What was compared.
    """
    classes = comparison.a.classes
    picture = draw_differences(
        classes, [(each.value, each.low, each.high) for each in comparison.sensitivity], figure="sensitivity"
    )
    png = png_of(picture)
    (folder / "differences.png").write_bytes(png)
    disagree = comparison.disagree
    table = pd.DataFrame(
        {
            "index": disagree,
            "true": [classes[k] for k in comparison.a.labels[disagree]],
            "a": [classes[k] for k in comparison.a.predicted[disagree]],
            "a_probability": comparison.a.confidence[disagree],
            "b": [classes[k] for k in comparison.b.predicted[disagree]],
            "b_probability": comparison.b.confidence[disagree],
        }
    )
    table.to_csv(folder / "disagreements.csv", index=False)
    content = {
        **vars(about),
        "n": len(comparison.a.labels),
        "values": {name: {"a": pair[0], "b": pair[1]} for name, pair in comparison.values.items()},
        "differences": {name: as_json(figure) for name, figure in comparison.differences.items()},
        "sensitivity": {name: as_json(figure) for name, figure in zip(classes, comparison.sensitivity, strict=True)},
        "only_a_right": comparison.only_a,
        "only_b_right": comparison.only_b,
        "mcnemar_p": comparison.p_value,
        "n_disagreements": len(disagree),
        "intervals": comparison.intervals,
    }
    (folder / "comparison.json").write_text(json.dumps(content, indent=2) + "\n")
    page = {
        "about": about,
        "comparison": comparison,
        "verdict": describe_verdict(comparison),
        "rows": [
            (OVERALL_NAMES[name], *(f"{value:.4f}" for value in comparison.values[name]), _signed(comparison.differences[name]))
            for name in COMPARED
        ],
        "by_class": [(name, _signed(figure)) for name, figure in zip(classes, comparison.sensitivity, strict=True)],
        "key": write_key(folder, classes),
        "png": base64.b64encode(png).decode(),
        "n_disagreements": len(disagree),
        "shown": [
            {
                "tile": picture_data(images[row]),
                "caption": f"tile {row}: {classes[comparison.a.labels[row]]}; "
                f"A {classes[comparison.a.predicted[row]]} ({comparison.a.confidence[row]:.2f}), "
                f"B {classes[comparison.b.predicted[row]]} ({comparison.b.confidence[row]:.2f})",
            }
            for row in disagree[:_SHOWN]
        ],
        "confidence": round(100 * CONFIDENCE),
    }
    (folder / "comparison.html").write_text(render("comparison.html.j2", page), encoding="utf-8")


def describe_verdict(comparison: Comparison) -> str:
    """Return in one sentence whether the data tell the models apart by balanced accuracy."""
    difference = comparison.differences["balanced_accuracy"]
    words = _signed(difference)
    if difference.low > 0:
        return f"B is better: balanced accuracy {words}"
    if difference.high < 0:
        return f"A is better: balanced accuracy of B {words}"
    return f"These tiles don't tell them apart: balanced accuracy of B {words}"


def _signed(figure: Figure) -> str:
    if not figure.is_defined:
        return "not defined"
    return f"{figure.value:+.4f} ({figure.low:+.4f} to {figure.high:+.4f})"
