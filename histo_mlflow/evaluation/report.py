"""The report of one scored split: its figures and a page, drawn from findings; knows nothing of runs and keeps no number."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histo_mlflow.evaluation import plots
from histo_mlflow.evaluation.findings import CALIBRATION_FIGURES, Findings
from histo_mlflow.evaluation.gallery import GalleryRow, most_confused
from histo_mlflow.evaluation.intervals import CONFIDENCE
from histo_mlflow.evaluation.lettering import write_key
from histo_mlflow.evaluation.page import picture_data, png_of, render
from histo_mlflow.evaluation.perturbed import SYMMETRY, changed_by_any
from histo_mlflow.evaluation.wording import OVERALL_NAMES, describe_verdict, in_percent, in_two_parts, in_words, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_SHOWN_COLUMNS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc")
_FOLD_COLUMNS = ("balanced_accuracy", "accuracy", "loss", "best_epoch")


def draw_report(folder: Path, findings: Findings, gallery: Sequence[GalleryRow] = ()) -> None:
    """Draw the figures of a scored split and ``report.html`` into `folder`; `gallery` holds errors to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    _Report(folder, findings, gallery).draw()


class _Report:
    """The parts of one report; each method returns what the page shows of one."""

    def __init__(self, folder: Path, findings: Findings, gallery: Sequence[GalleryRow]) -> None:
        self._folder, self._findings, self._gallery = folder, findings, gallery
        self._evaluation, self._predictions = findings.evaluation, findings.predictions
        self._about, self._details = findings.about, findings.details
        self._classes = list(self._predictions.classes)

    def draw(self) -> None:
        """Draw all files, the page last."""
        page = self._figures_of_merit() | self._tried() | self._pictures()
        page |= {"about": self._about, "details": self._details, "confidence": round(100 * CONFIDENCE)}
        page |= {"classes": self._classes, "key": write_key(self._folder, self._classes)}
        (self._folder / "report.html").write_text(render("report.html.j2", page), encoding="utf-8")

    def _figures_of_merit(self) -> dict[str, Any]:
        evaluation, details = self._evaluation, self._details
        return {
            "n_tiles": len(self._predictions.labels),
            "headline": in_words(evaluation.overall["balanced_accuracy"]),
            "verdict": describe_verdict(evaluation, details.robustness, details.baselines),
            "overall": [(OVERALL_NAMES[name], in_words(figure)) for name, figure in evaluation.overall.items()],
            "class_columns": _SHOWN_COLUMNS,
            "per_class": [
                (row.name, row.n, [in_two_parts(row.figures[column]) for column in _SHOWN_COLUMNS])
                for row in evaluation.per_class
            ],
            "confused": [
                (self._classes[true], self._classes[called], n, int(self._predictions.confusion[true].sum()))
                for true, called, n in most_confused(self._predictions)
            ],
            "flow": [(part, int(counts.sum()), counts.tolist()) for part, counts in details.flow.items()],
            "costs": self._findings.costs.tolist(),
            "intervals": evaluation.intervals,
        }

    def _tried(self) -> dict[str, Any]:
        found = self._details.robustness
        return {
            "calibration": {"rows": self._calibration_rows()},
            "selective": {"numbers": self._findings.abstention},
            "robustness": self._robustness_rows(),
            "in_symmetry": in_percent(changed_by_any(found, SYMMETRY)) if found else "",
            "baselines": self._baseline_rows(),
            "folds": self._folds(),
            "gallery": self._shown_errors(),
        }

    def _pictures(self) -> dict[str, str | None]:
        predictions, details = self._predictions, self._details
        calibration = details.calibration
        before = "before" if calibration.is_applied else f"if divided by {calibration.temperature or 1:.2f}"
        rescaled = self._findings.rescaled
        return {
            "confusion_png": self._picture(
                plots.draw_confusion(predictions.confusion, self._classes, title=self._title()), "confusion_matrix.png"
            ),
            "roc_png": self._picture(plots.draw_roc_and_precision(predictions), "roc_pr.png"),
            "calibration_png": self._picture(
                plots.draw_calibration(predictions, rescaled, other_label=before), "calibration.png"
            ),
            "selective_png": self._picture(
                plots.draw_risk_coverage(predictions, calibration.abstain_below), "risk_coverage.png"
            ),
            "robustness_png": self._picture(plots.draw_robustness(details.robustness), "robustness.png")
            if details.robustness
            else None,
        }

    def _title(self) -> str:
        synthetic = " (synthetic tiles, not tissue)" if self._about.is_synthetic else ""
        words = in_words(self._evaluation.overall["balanced_accuracy"])
        return f"{self._about.split}: balanced accuracy {words}, {len(self._predictions.labels)} tiles{synthetic}"

    def _calibration_rows(self) -> list[tuple[str, str, str]]:
        found = self._findings.calibration
        return [
            (OVERALL_NAMES[name], f"{found['before'][name]:.4f}", f"{found['after'][name]:.4f}")
            for name in (CALIBRATION_FIGURES if found else ())
        ]

    def _robustness_rows(self) -> list[tuple[str, str, str, str, str]]:
        return [
            (
                each.kind,
                each.strength,
                "" if k == 0 else in_percent(each.changed),
                f"{each.accuracy:.3f}",
                f"{each.balanced_accuracy:.3f}",
            )
            for k, each in enumerate(self._details.robustness)
        ]

    def _baseline_rows(self) -> list[tuple[str, str, str]]:
        baselines = self._details.baselines
        compared = {"the model": self._evaluation.overall, **baselines} if baselines else {}
        return [(name, in_words(each["balanced_accuracy"]), in_words(each["accuracy"])) for name, each in compared.items()]

    def _folds(self) -> dict[str, Any] | None:
        table = self._details.folds
        if table is None:
            return None
        columns = [name for name in _FOLD_COLUMNS if name in table]
        rows = [[str(int(row["fold"])), *(short(row[name]) for name in columns)] for _, row in table.iterrows()]
        spread = [
            ("mean", [short(table[name].mean()) for name in columns]),
            ("sd", [short(table[name].std(ddof=1)) for name in columns]),
        ]
        return {"columns": columns, "rows": rows + [[name, *values] for name, values in spread]}

    def _shown_errors(self) -> list[dict[str, Any]]:
        if not self._gallery:
            return []
        (self._folder / "gallery.png").write_bytes(png_of(plots.draw_sheet(self._gallery, self._classes)))
        return [
            {
                "heading": row.heading(self._classes),
                "shown": [
                    {
                        "tile": picture_data(shown.tile),
                        "overlay": None if shown.overlay is None else picture_data(shown.overlay),
                        "caption": shown.caption(self._classes),
                    }
                    for shown in row.shown
                ],
            }
            for row in self._gallery
        ]

    def _picture(self, picture: Picture, name: str) -> str:
        png = png_of(picture)
        (self._folder / name).write_bytes(png)
        return base64.b64encode(png).decode()
