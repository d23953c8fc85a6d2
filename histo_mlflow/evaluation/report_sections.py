"""The report of scored tiles: its pictures and its page; knows nothing of runs and keeps no number.

A section of the page is a template, ``templates/report/<section>.html.j2``; all are filled with the same values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from histo_mlflow.evaluation import plots
from histo_mlflow.evaluation.caveats import caveats_of
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.gallery import GalleryRow, most_confused
from histo_mlflow.evaluation.lettering import write_key
from histo_mlflow.evaluation.metrics import CLASS_METRICS
from histo_mlflow.evaluation.page import keep_picture, write_page
from histo_mlflow.evaluation.perturbed import SYMMETRY, changed_by_any
from histo_mlflow.evaluation.verdict import verdict_of
from histo_mlflow.evaluation.wording import in_words, remarks_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

SECTIONS = (
    "headline", "data_flow", "confusion", "overall", "folds", "per_class", "calibration", "abstention", "robustness",
    "colour_alone", "errors", "intervals", "guidelines",
)  # fmt: skip
"""In the order of the page."""
_FOLD_COLUMNS = (
    "balanced_accuracy", "accuracy", "loss", "best_epoch", "nested_balanced_accuracy", "nested_accuracy", "nested_loss",
)  # fmt: skip


def draw_report(folder: Path, findings: Findings, gallery: Sequence[GalleryRow] = ()) -> None:
    """Draw the pictures of scored tiles and ``report.html`` into `folder`; `gallery` holds errors to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    write_page(folder / "report.html", "report", SECTIONS, show_findings(folder, findings, gallery))


def show_findings(folder: Path, findings: Findings, gallery: Sequence[GalleryRow] = ()) -> dict[str, Any]:
    """Draw the pictures into `folder`, and return what the sections show."""
    predictions, per_class, details = findings.predictions, findings.evaluation.per_class, findings.details
    return {
        "title": _title(findings),
        "findings": findings,
        "details": details,
        "classes": predictions.classes,
        "verdict": verdict_of(findings),
        "caveats": caveats_of(findings),
        "remarks": remarks_on(findings),
        "confused": most_confused(predictions),
        "folds": None if details.folds is None else _sum_up(details.folds),
        # A run that was scored before a metric was added has not kept it.
        "class_metrics": [
            each for name, each in CLASS_METRICS.items() if each.is_on_page and all(name in row.estimates for row in per_class)
        ],
        "in_symmetry": changed_by_any(details.robustness, SYMMETRY) if details.robustness else None,
        "gallery": gallery,
        "pictures": {name: keep_picture(folder / f"{name}.png", each) for name, each in _draw(findings, gallery)},
        "key": write_key(folder, predictions.classes),
    }


def _title(findings: Findings) -> str:
    return f"{findings.about.split}: balanced accuracy {in_words(findings.evaluation.overall['balanced_accuracy'])}"


def _draw(findings: Findings, gallery: Sequence[GalleryRow]) -> Iterator[tuple[str, Picture]]:
    predictions, details, calibration = findings.predictions, findings.details, findings.details.calibration
    synthetic = " (synthetic tiles, not tissue)" if findings.about.is_synthetic else ""
    title = f"{_title(findings)}, {len(predictions.labels)} tiles{synthetic}"
    yield "confusion_matrix", plots.draw_confusion(predictions.confusion, predictions.classes, title=title)
    yield "roc_pr", plots.draw_roc_and_precision(predictions)
    label = "before" if calibration.is_applied else f"if divided by {calibration.temperature or 1:.2f}"
    yield "calibration", plots.draw_calibration(predictions, findings.rescaled, other_label=label)
    yield "risk_coverage", plots.draw_risk_coverage(predictions, calibration.abstain_below)
    if details.robustness:
        yield "robustness", plots.draw_robustness(details.robustness)
    if gallery:
        yield "gallery", plots.draw_sheet(gallery, predictions.classes)


def _sum_up(folds: pd.DataFrame) -> pd.DataFrame:
    """Return the figures of each fold, and below them how far the folds lie apart."""
    figures = folds.set_index("fold")[[name for name in _FOLD_COLUMNS if name in folds]]
    return pd.concat([figures, figures.agg(["mean", "std"]).rename({"std": "sd"})])
