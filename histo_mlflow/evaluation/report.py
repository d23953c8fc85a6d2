"""One scored split as files: tables, figures and a page; knows nothing of runs, only of the folder that it writes to."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray

from histo_mlflow.evaluation import figures as pictures
from histo_mlflow.evaluation.calibration import scale
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.evaluation.gallery import GalleryRow, as_sheet, most_confused
from histo_mlflow.evaluation.intervals import CONFIDENCE, Figure, Floats
from histo_mlflow.evaluation.metrics import (
    TARGET_ACCURACY,
    ClassFigures,
    Evaluation,
    Figures,
    Predictions,
    evaluate_predictions,
)
from histo_mlflow.evaluation.perturbed import SYMMETRY, Perturbed, changed_by_any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

OVERALL_NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy (multi-class)",
    "macro_f1": "Macro F1",
    "matthews_correlation": "Matthews correlation",
    "cohens_kappa": "Cohen's kappa",
    "macro_auroc": "Macro AUROC (one-vs-rest)",
    "macro_auprc": "Macro AUPRC (one-vs-rest)",
    "log_loss": "Log loss (nats)",
    "brier_score": "Brier score (0 to 2)",
    "expected_cost": "Expected cost per tile",
    "ece_top_label": "Calibration error, predicted class",
    "ece_classwise": "Calibration error, mean of classes",
    "aurc": "Area under the risk-coverage curve",
    "coverage_at_99_accuracy": "Coverage at 99 % accuracy",
    "mean_one_vs_rest_accuracy": "One-vs-rest accuracy, mean of classes",
}
_CLASS_COLUMNS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc", "one_vs_rest_accuracy")
_SHOWN_COLUMNS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc")
_CALIBRATION_ROWS = ("log_loss", "brier_score", "ece_top_label", "ece_classwise")
_BASELINE_RESAMPLES = 500
_DPI = 110


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


@dataclass(frozen=True, eq=False)
class Details:
    """What a report can show beyond labels and probabilities; what is absent is said to be absent.

    Attributes:
        flow: Tiles per class ``(n_classes,)`` of each part, by name: training, validation, scored.
        split_unit: What was kept together when the parts were made, in words.
        temperature: Fitted on validation tiles, or None.
        is_calibrated: Whether the probabilities are those after division by `temperature`.
        threshold: Probability below which the model abstains, chosen on validation tiles, or None.
        costs: ``(n_classes, n_classes)``, or None for the default.
        robustness: From the robustness protocol, first without a change.
        baselines: What classifiers that see only colour say of the same tiles, by name.
        gallery: Errors to look at.
        folds: One row of figures for each fold.
    """

    flow: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    split_unit: str = "not known"
    temperature: float | None = None
    is_calibrated: bool = False
    threshold: float | None = None
    costs: Floats | None = None
    robustness: Sequence[Perturbed] = ()
    baselines: Mapping[str, Predictions] = field(default_factory=dict)
    gallery: Sequence[GalleryRow] = ()
    folds: pd.DataFrame | None = None


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
            "headline": in_words(evaluation.overall["balanced_accuracy"]),
            "verdict": self._verdict(baselines),
            "overall": [(OVERALL_NAMES[name], in_words(figure)) for name, figure in evaluation.overall.items()],
            "class_columns": _SHOWN_COLUMNS,
            "per_class": [
                (row.name, row.n, [_in_two_parts(row.figures[column]) for column in _SHOWN_COLUMNS])
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

    def _verdict(self, baselines: Mapping[str, Evaluation]) -> list[str]:
        """Return the sentences that a reader in a hurry should take along."""
        sentences = []
        defined = [row for row in self._evaluation.per_class if row.figures["sensitivity"].is_defined]
        weakest = min(defined, key=lambda row: row.figures["sensitivity"].value)
        if weakest.figures["sensitivity"].value < 1:
            sentences.append(f"Weakest class: {weakest.name}, of which {in_percent(weakest.figures['sensitivity'])} are found.")
        else:
            sentences.append("Every tile got its own class.")
        for true, called, n in most_confused(self._predictions, 1):
            share = n / int(self._predictions.is_wrong.sum())
            sentences.append(
                f"Commonest error: {self._classes[true]} called {self._classes[called]}, {n} tiles, {100 * share:.0f} % of all "
                "errors."
            )
        right, said = 1 - self._predictions.is_wrong.mean(), self._predictions.confidence.mean()
        words = (
            "about as sure as it is right" if abs(right - said) < 0.02 else ("too sure" if said > right else "not sure enough")
        )
        sentences.append(f"The model is {words}: it says {100 * said:.1f} % in mean and is right in {100 * right:.1f} %.")
        if baselines:
            name, value = max(
                ((name, each.overall["balanced_accuracy"].value) for name, each in baselines.items()), key=lambda pair: pair[1]
            )
            if value >= self._evaluation.overall["balanced_accuracy"].low:
                sentences.append(
                    f"It is not clearly ahead of a classifier that sees only colour ({name}: balanced accuracy {value:.3f})."
                )
        if self._details.robustness:
            worst = max(self._details.robustness[1:], key=lambda each: each.changed.value)
            sentences.append(
                f"It yields most to {worst.kind}, {worst.strength}: {in_percent(worst.changed)} of the classes change."
            )
        missing = [row.name for row in self._evaluation.per_class if row.n == 0]
        if missing:
            sentences.append(f"No tile of {', '.join(missing)}: nothing is said of finding it, and the means leave it out.")
        return sentences

    def _calibration(self) -> tuple[dict[str, Any], Predictions | None]:
        details, predictions = self._details, self._predictions
        numbers: dict[str, Any] = {"temperature": details.temperature, "is_applied": details.is_calibrated}
        found: dict[str, Any] = {"numbers": numbers, "rows": [], "other_label": ""}
        if details.temperature is None:
            return found, None
        factor = 1 / details.temperature if details.is_calibrated else details.temperature
        other = Predictions(predictions.labels, scale(predictions.probabilities, factor), predictions.classes)
        found["other_label"] = "before" if details.is_calibrated else f"if divided by {details.temperature:.2f}"
        before, after = (other, predictions) if details.is_calibrated else (predictions, other)
        values = [_values(each, self._costs) for each in (before, after)]
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
        rows = [[str(int(row["fold"])), *(_short(row[name]) for name in columns)] for _, row in table.iterrows()]
        spread = [
            ("mean", [_short(table[name].mean()) for name in columns]),
            ("sd", [_short(table[name].std(ddof=1)) for name in columns]),
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
        (self._folder / "gallery.png").write_bytes(png_of(pictures.draw_sheet(as_sheet(rows))))
        return [
            {
                "heading": row.heading,
                "shown": [
                    {
                        "tile": picture_data(shown.tile),
                        "overlay": None if shown.overlay is None else picture_data(shown.overlay),
                        "caption": shown.caption,
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


def render(template: str, page: Mapping[str, Any]) -> str:
    """Return a page of ours; names from the data are escaped."""
    environment = Environment(
        loader=PackageLoader("histo_mlflow.evaluation", "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**page)


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


def class_table(per_class: tuple[ClassFigures, ...]) -> pd.DataFrame:
    """Return one row per class: n, and each figure with its interval in ``_low`` and ``_high``; empty where not defined."""
    rows = []
    for of_class in per_class:
        row: dict[str, object] = {"class": of_class.name, "n": of_class.n}
        for name in _CLASS_COLUMNS:
            figure = of_class.figures[name]
            row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        rows.append(row)
    return pd.DataFrame(rows)


def png_of(picture: Picture) -> bytes:
    """Return the picture as PNG."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def as_json(figure: Figure) -> dict[str, float | None]:
    """Return value, low and high, None where not defined."""
    return {name: None if math.isnan(value) else value for name, value in vars(figure).items()}


def in_words(figure: Figure) -> str:
    """Return a value with its interval, or "not defined"."""
    value, interval = _in_two_parts(figure)
    return f"{value} ({interval})" if interval else value


def in_percent(figure: Figure) -> str:
    """Return a share with its interval in percent."""
    return f"{100 * figure.value:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def _values(predictions: Predictions, costs: Floats) -> dict[str, float]:
    found = Figures(predictions, costs)(np.ones((1, len(predictions.labels)), np.float32))
    return {name: float(found[name][0]) for name in _CALIBRATION_ROWS}


def _in_two_parts(figure: Figure) -> tuple[str, str]:
    if not figure.is_defined:
        return "not defined", ""
    return f"{figure.value:.3f}", "" if math.isnan(figure.low) else f"{figure.low:.3f} to {figure.high:.3f}"


def _short(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4f}"


def picture_data(tile: NDArray[np.uint8]) -> str:
    """Return the tile as an address that holds the picture itself."""
    from PIL import Image

    with io.BytesIO() as buffer:
        Image.fromarray(tile).save(buffer, format="JPEG", quality=90, subsampling=0)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
