"""The report of scored tiles: its pictures and its page; knows nothing of runs and keeps no number.

A section of the page is a template, ``templates/report/<section>.html.j2``; all are filled with the same values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from histo_mlflow.base.lettering import write_key
from histo_mlflow.evaluation import plots
from histo_mlflow.evaluation.caveats import caveats_of
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.gallery import Album, GalleryRow, most_confused
from histo_mlflow.evaluation.metrics import CLASS_METRICS
from histo_mlflow.evaluation.page import keep_picture, svg_data, write_page
from histo_mlflow.evaluation.perturbed import SYMMETRY, changed_by_any
from histo_mlflow.evaluation.verdict import SPLITS, chance_level, verdict_of
from histo_mlflow.evaluation.wording import in_words, remarks_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

SECTIONS = (
    "headline", "confusion", "per_class", "overall", "colour_alone", "folds", "curves", "seen", "data_flow", "examples",
    "errors", "class_figures", "calibration", "abstention", "robustness", "intervals", "guidelines",
)  # fmt: skip
"""In the order of the page; the first three are the essentials, on two printed pages."""
_DETAILS = "overall"
_MOST_CONFUSED = 5
_FOLD_COLUMNS = (
    "balanced_accuracy", "accuracy", "loss", "best_epoch", "nested_balanced_accuracy", "nested_accuracy", "nested_loss",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """Where the page belongs: the registered version of its model and the address of its run, each "" if there is none."""

    version: str = ""
    link: str = ""


NO_TILES, NOWHERE = Album(), Made()


def draw_report(
    folder: Path, findings: Findings, album: Album = NO_TILES, curves: Sequence[Picture] = (), made: Made = NOWHERE
) -> None:
    """Draw the pictures of scored tiles and ``report.html`` into `folder`.

    `album` holds tiles to look at, `curves` how the model has learnt, in panels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_page(
        folder / "report.html", "report", SECTIONS, show_findings(folder, findings, album, curves, made), details=_DETAILS
    )


def show_findings(
    folder: Path, findings: Findings, album: Album = NO_TILES, curves: Sequence[Picture] = (), made: Made = NOWHERE
) -> dict[str, Any]:
    """Draw the pictures into `folder`, and return what the sections show."""
    predictions, per_class, details = findings.predictions, findings.evaluation.per_class, findings.details
    verdict, confused = verdict_of(findings), most_confused(predictions)
    write_key(folder, predictions.classes)
    return {
        "title": f"{verdict.sign.symbol} {verdict.word}, {_title(findings)}",
        "findings": findings,
        "split": SPLITS[findings.about.split],
        "details": details,
        "classes": predictions.classes,
        "verdict": verdict,
        "caveats": caveats_of(findings),
        "chance": chance_level(predictions),
        "remarks": remarks_on(findings),
        "confused": confused[:_MOST_CONFUSED],
        "as_often": sum(n == confused[_MOST_CONFUSED - 1][2] for *_, n in confused[_MOST_CONFUSED:]),
        "folds": None if details.folds is None else _sum_up(details.folds),
        # A run that was scored before a metric was added has not kept it.
        "class_metrics": [
            each for name, each in CLASS_METRICS.items() if each.is_on_page and all(name in row.estimates for row in per_class)
        ],
        "in_symmetry": changed_by_any(details.robustness, SYMMETRY) if details.robustness else None,
        "album": album,
        "made": made,
        "curves": [svg_data(each) for each in curves],
        "panels": {name: svg_data(each) for name, each in _keep_pictures(folder, findings, album.errors)},
    }


def _title(findings: Findings) -> str:
    return f"{findings.about.split}: balanced accuracy {in_words(findings.evaluation.overall['balanced_accuracy'])}"


def _keep_pictures(folder: Path, findings: Findings, errors: Sequence[GalleryRow]) -> Iterator[tuple[str, Picture]]:
    """Draw the pictures that lie beside the page, and give those that it shows itself, by name."""
    predictions, details, calibration = findings.predictions, findings.details, findings.details.calibration
    synthetic = " (synthetic tiles, not tissue)" if findings.about.is_synthetic else ""
    title = f"{_title(findings)}, {len(predictions.labels)} tiles{synthetic}"
    keep_picture(folder / "confusion_matrix.png", plots.draw_confusion(predictions.confusion, predictions.classes, title=title))
    keep_picture(folder / "roc_pr.png", plots.draw_roc_and_precision(predictions))
    label = "before" if calibration.is_applied else f"if divided by {calibration.temperature or 1:.2f}"
    rescaled = None if calibration.temperature == 1 else findings.rescaled  # which would hide the other behind it
    keep_picture(folder / "calibration.png", plots.draw_calibration(predictions, rescaled, other_label=label))
    yield from plots.draw_panels(predictions, rescaled, other_label=label).items()
    yield _kept(folder, "risk_coverage", plots.draw_risk_coverage(predictions, calibration.abstain_below))
    if details.robustness:
        yield _kept(folder, "robustness", plots.draw_robustness(details.robustness))
    if errors:
        keep_picture(folder / "gallery.png", plots.draw_sheet(errors, predictions.classes))


def _kept(folder: Path, name: str, picture: Picture) -> tuple[str, Picture]:
    keep_picture(folder / f"{name}.png", picture)
    return name, picture


def _sum_up(folds: pd.DataFrame) -> pd.DataFrame:
    """Return the figures of each fold, and below them how far the folds lie apart."""
    figures = folds.set_index("fold")[[name for name in _FOLD_COLUMNS if name in folds]]
    return pd.concat([figures, figures.agg(["mean", "std"]).rename({"std": "sd"})])
