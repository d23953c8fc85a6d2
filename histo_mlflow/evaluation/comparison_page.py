"""A comparison of two models as files: its numbers, and the page that is drawn from these."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import parse_json
from histo_mlflow.evaluation.comparison import COMPARED, Comparison
from histo_mlflow.evaluation.findings import About
from histo_mlflow.evaluation.intervals import CONFIDENCE, Figure
from histo_mlflow.evaluation.kept_numbers import reading_kept
from histo_mlflow.evaluation.lettering import write_key
from histo_mlflow.evaluation.metrics import Predictions
from histo_mlflow.evaluation.page import picture_data, png_of, render
from histo_mlflow.evaluation.plots import draw_differences
from histo_mlflow.evaluation.wording import OVERALL_NAMES, as_json, from_json

_SHOWN = 18
_ABOUT = ("source", "fingerprint", "looks", "is_synthetic", "tile_size_px")


def write_comparison(folder: Path, comparison: Comparison, about: About) -> None:
    """Write ``comparison.json``, ``predictions.npz`` and ``disagreements.csv``, from which the page is drawn."""
    a, b = comparison.a, comparison.b
    arrays: dict[str, Any] = {"labels": a.labels, "probabilities_a": a.probabilities, "probabilities_b": b.probabilities}
    if a.groups is not None:
        arrays["groups"] = a.groups
    np.savez_compressed(folder / "predictions.npz", **arrays)
    (folder / "comparison.json").write_text(json.dumps(_as_content(comparison, about), indent=2) + "\n")
    _disagreements(comparison).to_csv(folder / "disagreements.csv", index=False)


def read_comparison(folder: Path) -> tuple[Comparison, About]:
    """Return what `write_comparison` has written to `folder`.

    Raises:
        TileFormatError: A file is missing, damaged, or of a version that has kept less.
    """
    with reading_kept(folder, "comparison.json", "histo compare"):
        content = parse_json((folder / "comparison.json").read_text())
        with np.load(folder / "predictions.npz") as arrays:
            return _from_kept(content, dict(arrays)), _about_kept(content)


def draw_comparison(folder: Path, comparison: Comparison, images: NDArray[np.uint8] | None, about: About) -> None:
    """Draw ``differences.png`` and ``comparison.html``.

    Args:
        folder: Where to.
        comparison: Of predictions in the order of `images`.
        images: ``(n_tiles, size, size, 3)`` uint8, or None where the tiles are not at hand.
        about: What was compared.
    """
    classes = comparison.a.classes
    picture = draw_differences(
        classes, [(each.value, each.low, each.high) for each in comparison.sensitivity], figure="sensitivity"
    )
    png = png_of(picture)
    (folder / "differences.png").write_bytes(png)
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
        "n_disagreements": len(comparison.disagree),
        "shown": [] if images is None else _shown(comparison, images),
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


def _disagreements(comparison: Comparison) -> pd.DataFrame:
    a, b, classes, rows = comparison.a, comparison.b, comparison.a.classes, comparison.disagree
    return pd.DataFrame(
        {
            "index": rows,
            "true": [classes[k] for k in a.labels[rows]],
            "a": [classes[k] for k in a.predicted[rows]],
            "a_probability": a.confidence[rows],
            "b": [classes[k] for k in b.predicted[rows]],
            "b_probability": b.confidence[rows],
        }
    )


def _as_content(comparison: Comparison, about: About) -> dict[str, object]:
    classes = comparison.a.classes
    return {
        "a": about.models[0],
        "b": about.models[1],
        **{name: getattr(about, name) for name in _ABOUT},
        "n": len(comparison.a.labels),
        "values": {name: {"a": pair[0], "b": pair[1]} for name, pair in comparison.values.items()},
        "differences": {name: as_json(figure) for name, figure in comparison.differences.items()},
        "sensitivity": {name: as_json(figure) for name, figure in zip(classes, comparison.sensitivity, strict=True)},
        "only_a_right": comparison.only_a,
        "only_b_right": comparison.only_b,
        "mcnemar_p": comparison.p_value,
        "n_disagreements": len(comparison.disagree),
        "intervals": comparison.intervals,
    }


def _from_kept(content: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Comparison:
    classes = tuple(content["sensitivity"])
    a, b = (
        Predictions(arrays["labels"], arrays[f"probabilities_{side}"], classes, arrays.get("groups")) for side in ("a", "b")
    )
    return Comparison(
        a, b, {name: (pair["a"], pair["b"]) for name, pair in content["values"].items()},
        {name: from_json(kept) for name, kept in content["differences"].items()},
        tuple(from_json(kept) for kept in content["sensitivity"].values()),
        content["only_a_right"], content["only_b_right"], content["mcnemar_p"], content["intervals"],
    )  # fmt: skip


def _about_kept(content: dict[str, Any]) -> About:
    return About(models=(content["a"], content["b"]), **{name: content[name] for name in _ABOUT})


def _shown(comparison: Comparison, images: NDArray[np.uint8]) -> list[dict[str, str]]:
    a, b, classes = comparison.a, comparison.b, comparison.a.classes
    return [
        {
            "tile": picture_data(images[row]),
            "caption": f"tile {row}: {classes[a.labels[row]]}; "
            f"A {classes[a.predicted[row]]} ({a.confidence[row]:.2f}), "
            f"B {classes[b.predicted[row]]} ({b.confidence[row]:.2f})",
        }
        for row in comparison.disagree[:_SHOWN]
    ]


def _signed(figure: Figure) -> str:
    if not figure.is_defined:
        return "not defined"
    return f"{figure.value:+.4f} ({figure.low:+.4f} to {figure.high:+.4f})"
