"""The numbers of a scored split as files, from which its report can be drawn at any time; draws nothing itself."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import parse_json
from histo_mlflow.errors import TileFormatError
from histo_mlflow.evaluation.calibration import Calibration
from histo_mlflow.evaluation.findings import BASELINE_FIGURES, About, Details, Findings
from histo_mlflow.evaluation.metrics import ClassFigures, Evaluation, Predictions
from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.evaluation.tables import baseline_table, class_table, confusion_table, error_table, robustness_table
from histo_mlflow.evaluation.wording import OVERALL_NAMES, as_json, from_json

_DAMAGE = (OSError, KeyError, TypeError, ValueError, AttributeError, EOFError, zipfile.BadZipFile)
Arrays = Mapping[str, NDArray[Any]]


def write_numbers(folder: Path, findings: Findings) -> None:
    """Write ``summary.json``, ``predictions.npz`` and the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    evaluation, details = findings.evaluation, findings.details
    np.savez_compressed(folder / "predictions.npz", **_as_arrays(findings))
    (folder / "summary.json").write_text(json.dumps(_as_summary(findings), indent=2, allow_nan=False) + "\n")
    class_table(evaluation.per_class).to_csv(folder / "per_class.csv", index=False)
    confusion_table(findings.predictions).to_csv(folder / "confusion_matrix.csv")
    error_table(findings).to_csv(folder / "errors.csv", index=False)
    if details.robustness:
        robustness_table(details.robustness).to_csv(folder / "robustness.csv", index=False)
    if details.baselines:
        baseline_table(findings).to_csv(folder / "baselines.csv", index=False)


def read_numbers(folder: Path) -> Findings:
    """Return the findings that `write_numbers` has written to `folder`, figure for figure.

    Raises:
        TileFormatError: A file is missing, damaged, or of a version that has kept less.
    """
    with reading_kept(folder, "summary.json", "histo evaluate"):
        summary = parse_json((folder / "summary.json").read_text())
        with np.load(folder / "predictions.npz") as arrays:
            return _from_kept(summary, arrays)


@contextmanager
def reading_kept(folder: Path, file: str, again: str) -> Iterator[None]:
    """Turn whatever is wrong with `file` and ``predictions.npz`` into one line that names the command to score `again` with."""
    try:
        yield
    except _DAMAGE as error:
        raise TileFormatError(
            f"{folder.name}: {file} and predictions.npz don't hold what a report is drawn from ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); score the model again with {again}"
        ) from None


def _as_arrays(findings: Findings) -> dict[str, Any]:
    predictions, tried = findings.predictions, findings.details.robustness
    arrays: dict[str, Any] = {
        "labels": predictions.labels,
        "predicted": predictions.predicted,
        "probabilities": predictions.probabilities,
        "indices": findings.indices,
    }
    if predictions.groups is not None:
        arrays["groups"] = predictions.groups
    if tried:  # the tiles are the same for every change
        arrays |= {"robustness_labels": tried[0].labels, "robustness_before": tried[0].before}
        arrays["robustness_after"] = np.stack([each.after for each in tried])
    return arrays


def _as_summary(findings: Findings) -> dict[str, object]:
    evaluation, about, details = findings.evaluation, findings.about, findings.details
    return {
        **{name: as_json(figure) for name, figure in evaluation.overall.items()},
        "n": len(findings.indices),
        "selected": about.selected,
        "looks": about.looks,
        "split": about.split,
        "source": about.source,
        "data_fingerprint": about.fingerprint,
        "model": " and ".join(about.models),
        "is_synthetic": about.is_synthetic,
        "tile_size_px": about.tile_size_px,
        "intervals": evaluation.intervals,
        "classes": list(findings.predictions.classes),
        "per_class": [
            {"class": each.name, "n": each.n, "figures": {name: as_json(figure) for name, figure in each.figures.items()}}
            for each in evaluation.per_class
        ],
        "calibration": {
            "temperature": details.calibration.temperature,
            "is_applied": details.calibration.is_applied,
            **findings.calibration,
        },
        "abstention": findings.abstention,
        "robustness": [
            {"change": each.kind, "strength": each.strength, **as_json(each.changed), "accuracy": each.accuracy}
            for each in details.robustness
        ],
        "baselines": {
            name: as_json(figures["balanced_accuracy"]) | {key: as_json(figure) for key, figure in figures.items()}
            for name, figures in details.baselines.items()
        },
        "flow": {part: counts.tolist() for part, counts in details.flow.items()},
        "split_unit": details.split_unit,
        "costs": findings.costs.tolist(),
        "folds": [] if details.folds is None else details.folds.to_dict("records"),
    }  # fmt: skip


def _from_kept(summary: Mapping[str, Any], arrays: Arrays) -> Findings:
    classes = tuple(summary["classes"])
    groups = arrays.get("groups")
    predictions = Predictions(arrays["labels"], arrays["probabilities"], classes, groups)
    per_class = tuple(
        ClassFigures(row["class"], row["n"], {name: from_json(kept) for name, kept in row["figures"].items()})
        for row in summary["per_class"]
    )
    overall = {name: from_json(summary[name]) for name in OVERALL_NAMES}
    about = About(
        split=summary["split"],
        source=summary["source"],
        fingerprint=summary["data_fingerprint"],
        is_synthetic=summary["is_synthetic"],
        tile_size_px=summary["tile_size_px"],
        models=(summary["model"],),
        selected=summary["selected"],
        looks=summary["looks"],
    )
    evaluation = Evaluation(predictions, overall, per_class, summary["intervals"])
    return Findings(evaluation, arrays["indices"], about, _read_details(summary, arrays))


def _read_details(summary: Mapping[str, Any], arrays: Arrays) -> Details:
    return Details(
        flow={part: np.array(counts) for part, counts in summary["flow"].items()},
        split_unit=summary["split_unit"],
        calibration=Calibration(
            summary["calibration"]["temperature"],
            summary["calibration"]["is_applied"],
            summary["abstention"]["threshold"],
        ),
        costs=np.array(summary["costs"]),
        robustness=_read_robustness(summary["robustness"], arrays),
        baselines={
            name: {figure: from_json(kept[figure]) for figure in BASELINE_FIGURES}
            for name, kept in summary["baselines"].items()
        },
        folds=pd.DataFrame(summary["folds"]) if summary["folds"] else None,
    )


def _read_robustness(changes: Sequence[Mapping[str, Any]], arrays: Arrays) -> list[Perturbed]:
    if not changes:
        return []
    labels, before = arrays["robustness_labels"], arrays["robustness_before"]
    return [
        Perturbed(each["change"], each["strength"], labels, before, after)
        for each, after in zip(changes, arrays["robustness_after"], strict=True)
    ]
