"""Findings as tables that other programs can read."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.intervals import Estimate
from histo_mlflow.evaluation.metrics import ClassEvaluation
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.evaluation.perturbed import Perturbed


def class_table(per_class: Sequence[ClassEvaluation]) -> pd.DataFrame:
    """Return one row per class: n, and each metric with its interval in ``_low`` and ``_high``; empty where not defined."""
    return pd.DataFrame([{"class": each.name, "n": each.n, **_in_columns(each.estimates)} for each in per_class])


def error_table(findings: Findings) -> pd.DataFrame:
    """Return one row per wrong tile, that of the greatest loss first."""
    predictions = findings.predictions
    wrong = np.flatnonzero(predictions.is_wrong)
    wrong = wrong[np.argsort(-predictions.losses[wrong], kind="stable")]
    return pd.DataFrame(
        {
            "index": findings.indices[wrong],
            "true": [predictions.classes[k] for k in predictions.labels[wrong]],
            "predicted": [predictions.classes[k] for k in predictions.predicted[wrong]],
            "probability": predictions.confidence[wrong],
            "loss": predictions.losses[wrong],
            "name": findings.names[wrong],
            "group": "" if predictions.groups is None else predictions.groups[wrong],
        }
    )


def robustness_table(found: Sequence[Perturbed]) -> pd.DataFrame:
    """Return one row per change of the tiles."""
    return pd.DataFrame(
        [
            {
                "change": each.kind,
                "strength": each.strength,
                "n": len(each.labels),
                **_in_columns({"changed": each.changed}),
                "accuracy": each.accuracy,
                "balanced_accuracy": each.balanced_accuracy,
            }
            for each in found
        ]
    )


def baseline_table(findings: Findings) -> pd.DataFrame:
    """Return one row per classifier, the model first."""
    return pd.DataFrame([{"classifier": name, **_in_columns(figures)} for name, figures in findings.compared.items()])


def disagreement_table(comparison: Comparison, names: NDArray[np.str_] | None = None) -> pd.DataFrame:
    """Return one row per tile that two models call differently, the most confident disagreement first."""
    a, b, classes, rows = comparison.a, comparison.b, comparison.a.classes, comparison.disagree
    return pd.DataFrame(
        {
            "index": rows,
            "true": [classes[k] for k in a.labels[rows]],
            "a": [classes[k] for k in a.predicted[rows]],
            "a_probability": a.confidence[rows],
            "b": [classes[k] for k in b.predicted[rows]],
            "b_probability": b.confidence[rows],
            "name": rows if names is None else names[rows],
            "group": "" if a.groups is None else a.groups[rows],
        }
    )


def _in_columns(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name, each in estimates.items():
        columns |= {name: each.value, f"{name}_low": each.low, f"{name}_high": each.high}
    return columns
