"""Findings as tables that other programs can read."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from histo_mlflow.evaluation.findings import BASELINE_METRICS, Findings
from histo_mlflow.evaluation.intervals import Estimate
from histo_mlflow.evaluation.metrics import CLASS_METRICS, ClassEvaluation
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.evaluation.predictions import Predictions


def class_table(per_class: Sequence[ClassEvaluation]) -> pd.DataFrame:
    """Return one row per class: n, and each metric with its interval in ``_low`` and ``_high``; empty where not defined."""
    return pd.DataFrame(
        [{"class": each.name, "n": each.n, **_in_columns(each.estimates, tuple(CLASS_METRICS))} for each in per_class]
    )


def confusion_table(predictions: Predictions) -> pd.DataFrame:
    """Return the confusion matrix: rows true, columns predicted."""
    classes = list(predictions.classes)
    return pd.DataFrame(predictions.confusion, index=pd.Index(classes, name="true"), columns=classes)


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
        }
    )


def robustness_table(found: Sequence[Perturbed]) -> pd.DataFrame:
    """Return one row per change of the tiles."""
    return pd.DataFrame(
        [
            {
                "change": each.kind, "strength": each.strength, "n": len(each.labels), "changed": each.changed.value,
                "changed_low": each.changed.low, "changed_high": each.changed.high, "accuracy": each.accuracy,
                "balanced_accuracy": each.balanced_accuracy,
            }
            for each in found
        ]
    )  # fmt: skip


def baseline_table(findings: Findings) -> pd.DataFrame:
    """Return one row per classifier, the model first."""
    rows = [{"classifier": name, **_in_columns(each, BASELINE_METRICS)} for name, each in findings.compared.items()]
    return pd.DataFrame(rows)


def disagreement_table(comparison: Comparison) -> pd.DataFrame:
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
        }
    )


def _in_columns(estimates: Mapping[str, Estimate], names: Sequence[str]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name in names:
        estimate = estimates[name]
        columns |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return columns
