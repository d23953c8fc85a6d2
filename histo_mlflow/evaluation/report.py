"""One scored split as files: tables, figures and a page; knows nothing of runs, only of the folder that it writes to."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray

from histo_mlflow.evaluation.figures import draw_confusion
from histo_mlflow.evaluation.metrics import CONFIDENCE, N_RESAMPLES, ClassFigures, Evaluation, Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_OVERALL_NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy (multi-class)",
    "macro_f1": "Macro F1",
    "matthews_correlation": "Matthews correlation",
    "cohens_kappa": "Cohen's kappa",
    "log_loss": "Log loss (nats)",
    "brier_score": "Brier score (0 to 2)",
}
_CLASS_COLUMNS = ("sensitivity", "specificity", "ppv", "npv", "f1")
_DPI = 130


@dataclass(frozen=True)
class Provenance:
    """What a reader must know to weigh the figures.

    Attributes:
        split: ``val``, ``test`` or ``oof``.
        source: Which tiles.
        fingerprint: SHA-256 of the tile set that they are part of.
        model: Which model.
        selected: "selected on X by Y at epoch Z".
        looks: How often a model was scored on this set, this time included; 0 for a set that selection itself uses.
        is_synthetic: Whether the tiles are the demo's.
    """

    split: str
    source: str
    fingerprint: str
    model: str
    selected: str
    looks: int
    is_synthetic: bool


def write_evaluation(folder: Path, evaluation: Evaluation, indices: NDArray[np.int64], about: Provenance) -> None:
    """Write the six files of a scored split to `folder`; `indices` ``(n_tiles,)`` are positions in the tile set."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = list(evaluation.classes)
    confusion_picture = draw_confusion(evaluation.confusion, classes, title=_headline(evaluation, about))
    (folder / "confusion_matrix.png").write_bytes(png_of(confusion_picture))
    pd.DataFrame(evaluation.confusion, index=pd.Index(classes, name="true"), columns=classes).to_csv(
        folder / "confusion_matrix.csv"
    )
    class_table(evaluation.per_class).to_csv(folder / "per_class.csv", index=False)
    np.savez_compressed(
        folder / "predictions.npz",
        labels=evaluation.labels,
        predicted=evaluation.predicted,
        probabilities=evaluation.probabilities,
        indices=indices,
    )
    (folder / "summary.json").write_text(json.dumps(summarise(evaluation, about), indent=2, allow_nan=False) + "\n")
    (folder / "report.html").write_text(_render(evaluation, about, confusion_picture), encoding="utf-8")


def summarise(evaluation: Evaluation, about: Provenance) -> dict[str, object]:
    """Return every overall figure as value, low, high (None where not defined), with `n`, `selected` and `looks`."""
    figures: dict[str, object] = {
        name: {"value": _or_none(figure.value), "low": _or_none(figure.low), "high": _or_none(figure.high)}
        for name, figure in evaluation.overall.items()
    }
    return figures | {
        "n": len(evaluation.labels),
        "selected": about.selected,
        "looks": about.looks,
        "split": about.split,
        "source": about.source,
        "data_fingerprint": about.fingerprint,
        "model": about.model,
        "is_synthetic": about.is_synthetic,
    }


def class_table(per_class: tuple[ClassFigures, ...]) -> pd.DataFrame:
    """Return one row per class: n, and each figure with its interval in ``_low`` and ``_high``; empty where not defined."""
    rows = []
    for of_class in per_class:
        row: dict[str, object] = {"class": of_class.name, "n": of_class.n}
        for name in _CLASS_COLUMNS:
            figure: Figure = getattr(of_class, name)
            row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        rows.append(row)
    return pd.DataFrame(rows)


def png_of(picture: Picture) -> bytes:
    """Return the picture as PNG."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _headline(evaluation: Evaluation, about: Provenance) -> str:
    figure = evaluation.overall["balanced_accuracy"]
    synthetic = " (synthetic tiles, not tissue)" if about.is_synthetic else ""
    return f"{about.split}: balanced accuracy {in_words(figure)}, {len(evaluation.labels)} tiles{synthetic}"


def _render(evaluation: Evaluation, about: Provenance, confusion_picture: Picture) -> str:
    environment = Environment(
        loader=PackageLoader("histo_mlflow.evaluation", "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        about=about,
        n_tiles=len(evaluation.labels),
        headline=in_words(evaluation.overall["balanced_accuracy"]),
        overall=[(_OVERALL_NAMES[name], in_words(figure)) for name, figure in evaluation.overall.items()],
        class_columns=_CLASS_COLUMNS,
        per_class=[
            (row.name, row.n, [_in_two_parts(getattr(row, column)) for column in _CLASS_COLUMNS])
            for row in evaluation.per_class
        ],
        confused=_most_confused(evaluation),
        confusion_png=base64.b64encode(png_of(confusion_picture)).decode(),
        confidence=round(100 * CONFIDENCE),
        n_resamples=N_RESAMPLES,
    )


def _most_confused(evaluation: Evaluation, at_most: int = 5) -> list[tuple[str, str, int, int]]:
    """Return (true, predicted, tiles, tiles of the true class) of the commonest errors."""
    errors = evaluation.confusion - np.diag(np.diag(evaluation.confusion))
    order = np.argsort(errors, axis=None, kind="stable")[::-1][:at_most]
    pairs = [divmod(int(flat), len(evaluation.classes)) for flat in order]
    return [
        (evaluation.classes[true], evaluation.classes[called], int(errors[true, called]), int(evaluation.confusion[true].sum()))
        for true, called in pairs
        if errors[true, called] > 0
    ]


def _in_two_parts(figure: Figure) -> tuple[str, str]:
    if math.isnan(figure.value):
        return "not defined", ""
    return f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}"


def in_words(figure: Figure) -> str:
    """Return a value with its interval, or "not defined"."""
    value, interval = _in_two_parts(figure)
    return f"{value} ({interval})" if interval else value


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
