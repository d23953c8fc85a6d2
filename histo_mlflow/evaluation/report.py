"""One scored split as files: tables, figures and a page; knows nothing of runs, only of the folder that it writes to."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.evaluation import figures as pictures
from histo_mlflow.evaluation.calibration import scale
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.evaluation.details import Details, Provenance
from histo_mlflow.evaluation.gallery import most_confused
from histo_mlflow.evaluation.intervals import CONFIDENCE, Floats
from histo_mlflow.evaluation.lettering import write_key
from histo_mlflow.evaluation.metrics import (
    TARGET_ACCURACY,
    Evaluation,
    Figures,
    Predictions,
    evaluate_predictions,
)
from histo_mlflow.evaluation.page import picture_data, png_of, render
from histo_mlflow.evaluation.perturbed import SYMMETRY, changed_by_any
from histo_mlflow.evaluation.tables import class_table
from histo_mlflow.evaluation.wording import OVERALL_NAMES, as_json, describe_verdict, in_percent, in_two_parts, in_words, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_SHOWN_COLUMNS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc")
_CALIBRATION_ROWS = ("log_loss", "brier_score", "ece_top_label", "ece_classwise")
_BASELINE_RESAMPLES = 500


def write_evaluation(
    folder: Path, evaluation: Evaluation, indices: NDArray[np.int64], about: Provenance, details: Details | None = None
) -> None:
    """Write tables, figures, ``summary.json`` and ``report.html``; `indices` ``(n_tiles,)`` are positions in the tile set."""
    folder.mkdir(parents=True, exist_ok=True)
    _Report(folder, evaluation, indices, about, details or Details()).write()


class _Report:
    """The parts of one report; each method writes its files and returns what the page shows of them."""

    def __init__(
        self, folder: Path, evaluation: Evaluation, indices: NDArray[np.int64], about: Provenance, details: Details
    ) -> None:
        self._folder, self._evaluation, self._indices, self._about, self._details = folder, evaluation, indices, about, details
        self._predictions = evaluation.predictions
        self._classes = list(self._predictions.classes)
        self._costs = default_costs(self._predictions.classes) if details.costs is None else details.costs

    def write(self) -> None:
        """Write all files."""
        evaluation, predictions, details = self._evaluation, self._predictions, self._details
        class_table(evaluation.per_class).to_csv(self._folder / "per_class.csv", index=False)
        np.savez_compressed(
            self._folder / "predictions.npz",
            labels=predictions.labels,
            predicted=predictions.predicted,
            probabilities=predictions.probabilities,
            indices=self._indices,
        )
        self._table(pd.DataFrame(predictions.confusion, index=pd.Index(self._classes, name="true"), columns=self._classes),
                    "confusion_matrix.csv", index=True)  # fmt: skip
        calibration, other = self._calibration()
        selective = self._selective()
        robustness, baselines = self._robustness(), self._baselines()
        page = {
            "about": self._about,
            "details": details,
            "n_tiles": len(predictions.labels),
            "classes": self._classes,
            "key": write_key(self._folder, self._classes),
            "headline": in_words(evaluation.overall["balanced_accuracy"]),
            "verdict": describe_verdict(evaluation, details.robustness, baselines),
            "overall": [(OVERALL_NAMES[name], in_words(figure)) for name, figure in evaluation.overall.items()],
            "class_columns": _SHOWN_COLUMNS,
            "per_class": [
                (row.name, row.n, [in_two_parts(row.figures[column]) for column in _SHOWN_COLUMNS])
                for row in evaluation.per_class
            ],
            "confused": [
                (self._classes[true], self._classes[called], n, int(predictions.confusion[true].sum()))
                for true, called, n in most_confused(predictions)
            ],
            "flow": [(part, int(counts.sum()), counts.tolist()) for part, counts in details.flow.items()],
            "calibration": calibration,
            "selective": selective,
            "robustness": robustness,
            "in_symmetry": in_percent(changed_by_any(details.robustness, SYMMETRY)) if robustness else "",
            "baselines": [
                (name, in_words(each.overall["balanced_accuracy"]), in_words(each.overall["accuracy"]))
                for name, each in ({"the model": evaluation, **baselines} if baselines else {}).items()
            ],
            "folds": self._folds(),
            "gallery": self._gallery(),
            "costs": self._costs.tolist(),
            "intervals": evaluation.intervals,
            "confidence": round(100 * CONFIDENCE),
            "confusion_png": self._picture(
                pictures.draw_confusion(predictions.confusion, self._classes, title=self._title()), "confusion_matrix.png"
            ),
            "roc_png": self._picture(pictures.draw_roc_and_precision(predictions), "roc_pr.png"),
            "calibration_png": self._picture(
                pictures.draw_calibration(predictions, other, other_label=calibration["other_label"]), "calibration.png"
            ),
            "selective_png": self._picture(pictures.draw_risk_coverage(predictions, details.threshold), "risk_coverage.png"),
            "robustness_png": self._picture(pictures.draw_robustness(details.robustness), "robustness.png")
            if robustness
            else None,
        }
        summary = summarise(evaluation, self._about) | {
            "calibration": calibration["numbers"],
            "abstention": selective["numbers"],
            "robustness": [
                {"change": each.kind, "strength": each.strength, **as_json(each.changed), "accuracy": each.accuracy}
                for each in details.robustness
            ],
            "baselines": {name: as_json(each.overall["balanced_accuracy"]) for name, each in baselines.items()},
        }
        (self._folder / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
        (self._folder / "report.html").write_text(render("report.html.j2", page), encoding="utf-8")

    def _title(self) -> str:
        synthetic = " (synthetic tiles, not tissue)" if self._about.is_synthetic else ""
        words = in_words(self._evaluation.overall["balanced_accuracy"])
        return f"{self._about.split}: balanced accuracy {words}, {len(self._predictions.labels)} tiles{synthetic}"

    def _calibration(self) -> tuple[dict[str, Any], Predictions | None]:
        details, predictions = self._details, self._predictions
        numbers: dict[str, Any] = {"temperature": details.temperature, "is_applied": details.is_calibrated}
        found: dict[str, Any] = {"numbers": numbers, "rows": [], "other_label": ""}
        if details.temperature is None:
            return found, None
        factor = 1 / details.temperature if details.is_calibrated else details.temperature
        other = Predictions(predictions.labels, scale(predictions.probabilities, factor), predictions.classes)
        found["other_label"] = "before" if details.is_calibrated else f"if divided by {details.temperature:.2f}"
        own = {name: self._evaluation.overall[name].value for name in _CALIBRATION_ROWS}
        values = [own, _values(other, self._costs)]
        if details.is_calibrated:
            values.reverse()
        found["rows"] = [
            (OVERALL_NAMES[name], f"{values[0][name]:.4f}", f"{values[1][name]:.4f}") for name in _CALIBRATION_ROWS
        ]
        numbers |= {
            when: {name: value[name] for name in _CALIBRATION_ROWS}
            for when, value in zip(("before", "after"), values, strict=True)
        }
        return found, other

    def _selective(self) -> dict[str, Any]:
        threshold, predictions = self._details.threshold, self._predictions
        numbers: dict[str, Any] = {"threshold": threshold, "target_accuracy": TARGET_ACCURACY}
        if threshold is not None:
            is_kept = predictions.confidence >= threshold
            n, right = int(is_kept.sum()), int((is_kept & ~predictions.is_wrong).sum())
            numbers |= {"coverage": n / len(is_kept), "accuracy_of_kept": right / n if n else None}
        return {"numbers": numbers}

    def _robustness(self) -> list[tuple[str, str, str, str, str]]:
        found = self._details.robustness
        if not found:
            return []
        rows = [
            {
                "change": each.kind, "strength": each.strength, "n": len(each.labels), "changed": each.changed.value,
                "changed_low": each.changed.low, "changed_high": each.changed.high, "accuracy": each.accuracy,
                "balanced_accuracy": each.balanced_accuracy,
            }
            for each in found
        ]  # fmt: skip
        self._table(pd.DataFrame(rows), "robustness.csv")
        return [
            (
                each.kind,
                each.strength,
                "" if k == 0 else in_percent(each.changed),
                f"{each.accuracy:.3f}",
                f"{each.balanced_accuracy:.3f}",
            )
            for k, each in enumerate(found)
        ]

    def _baselines(self) -> dict[str, Evaluation]:
        """Return the evaluation of each baseline, by name."""
        found = {
            name: evaluate_predictions(predictions, costs=self._costs, n_resamples=_BASELINE_RESAMPLES)
            for name, predictions in self._details.baselines.items()
        }
        if found:
            rows = []
            for name, evaluation in {"the model": self._evaluation, **found}.items():
                row: dict[str, object] = {"classifier": name}
                for figure in ("balanced_accuracy", "accuracy", "log_loss"):
                    value = evaluation.overall[figure]
                    row |= {figure: value.value, f"{figure}_low": value.low, f"{figure}_high": value.high}
                rows.append(row)
            self._table(pd.DataFrame(rows), "baselines.csv")
        return found

    def _folds(self) -> dict[str, Any] | None:
        table = self._details.folds
        if table is None:
            return None
        columns = [name for name in ("balanced_accuracy", "accuracy", "loss", "best_epoch") if name in table]
        rows = [[str(int(row["fold"])), *(short(row[name]) for name in columns)] for _, row in table.iterrows()]
        spread = [
            ("mean", [short(table[name].mean()) for name in columns]),
            ("sd", [short(table[name].std(ddof=1)) for name in columns]),
        ]
        return {"columns": columns, "rows": rows + [[name, *values] for name, values in spread]}

    def _gallery(self) -> list[dict[str, Any]]:
        rows = self._details.gallery
        predictions = self._predictions
        wrong = np.flatnonzero(predictions.is_wrong)
        wrong = wrong[np.argsort(-predictions.losses[wrong], kind="stable")]
        errors = {
            "index": self._indices[wrong],
            "true": [self._classes[k] for k in predictions.labels[wrong]],
            "predicted": [self._classes[k] for k in predictions.predicted[wrong]],
            "probability": predictions.confidence[wrong],
            "loss": predictions.losses[wrong],
        }
        self._table(pd.DataFrame(errors), "errors.csv")
        if not rows:
            return []
        (self._folder / "gallery.png").write_bytes(png_of(pictures.draw_sheet(rows, self._classes)))
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
            for row in rows
        ]

    def _picture(self, picture: Picture, name: str) -> str:
        png = png_of(picture)
        (self._folder / name).write_bytes(png)
        return base64.b64encode(png).decode()

    def _table(self, table: pd.DataFrame, name: str, *, index: bool = False) -> None:
        table.to_csv(self._folder / name, index=index)


def summarise(evaluation: Evaluation, about: Provenance) -> dict[str, object]:
    """Return every overall figure as value, low, high (None where not defined), with `n`, `selected` and `looks`."""
    figures: dict[str, object] = {name: as_json(figure) for name, figure in evaluation.overall.items()}
    return figures | {
        "n": len(evaluation.predictions.labels),
        "selected": about.selected,
        "looks": about.looks,
        "split": about.split,
        "source": about.source,
        "data_fingerprint": about.fingerprint,
        "model": about.model,
        "is_synthetic": about.is_synthetic,
        "intervals": evaluation.intervals,
    }


def _values(predictions: Predictions, costs: Floats) -> dict[str, float]:
    found = Figures(predictions, costs)(np.ones((1, len(predictions.labels)), np.float32))
    return {name: float(found[name][0]) for name in _CALIBRATION_ROWS}
