"""The metrics, one entry of a table each, and their values with intervals; knows nothing of networks, files or runs.

What is added to a table is in every report, file and test of metrics at once.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from histo_mlflow.evaluation import confusion as of_confusion
from histo_mlflow.evaluation.confusion import Counts, mean_defined, ratio
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.evaluation.drawn import Drawn, Prepared
from histo_mlflow.evaluation.intervals import QUANTILE, Estimate, Floats, Spread, Statistics, Units, Weights, wilson
from histo_mlflow.evaluation.limits import (
    NO_LIMITS,
    Limits,
    effective_number,
    effective_number_of_tiles,
    log_limits,
    logit_limits,
    wilson_limits,
)
from histo_mlflow.evaluation.metric import Metric, confused, counted, falsely_called, loss, missed, ranked, share
from histo_mlflow.evaluation.predictions import Predictions

FEWEST_GROUPS = 20
_LEAST_FREEDOM_OF_CLASS = 7.0
"""By groups; simulated (benchmarks/coverage.py): with the few that few patients with errors give, nearly all hold the truth."""


def _table(*metrics: Metric) -> Mapping[str, Metric]:
    return {metric.name: metric for metric in metrics}


def _mean_one_vs_rest(confusion: Counts) -> Floats:
    return np.asarray(ratio(*of_confusion.one_vs_rest_accuracy(confusion)).mean(axis=-1))


OVERALL_METRICS = _table(
    counted("balanced_accuracy", "Balanced accuracy", of_confusion.balanced_accuracy),
    share("accuracy", "Accuracy (multi-class)", of_confusion.accuracy),
    counted("macro_f1", "Macro F1", of_confusion.macro_f1),
    counted("matthews_correlation", "Matthews correlation", of_confusion.matthews_correlation, lowest=-1.0),
    counted("cohens_kappa", "Cohen's kappa", of_confusion.cohens_kappa, lowest=-1.0),
    ranked(
        "macro_auroc",
        "Macro AUROC (one-vs-rest)",
        lambda drawn: mean_defined(drawn.auroc_and_precision[0]),
        fewest_errors=12,
        freedom_by_groups=0.8,
    ),
    ranked(
        "macro_auprc",
        "Macro AUPRC (one-vs-rest)",
        lambda drawn: mean_defined(drawn.auroc_and_precision[1]),
        fewest_errors=12,
    ),
    loss("log_loss", "Log loss (nats)", lambda drawn: drawn.loss_and_squares[0], fewest_tiles=60),
    loss(
        "brier_score",
        "Brier score (0 to 2)",
        lambda drawn: drawn.loss_and_squares[1],
        fewest_tiles=60,
        tiles_per_freedom=60,  # no tile costs more than 2: few degrees of freedom are too few (simulated)
    ),
    loss("expected_cost", "Expected cost per tile", lambda drawn: drawn.cost, fewest_tiles=200, fewest_errors=12),
    loss("ece_top_label", "Calibration error, predicted class", lambda drawn: drawn.calibration_error, has_interval=False),
    loss(
        "ece_classwise",
        "Calibration error, mean of classes",
        lambda drawn: drawn.calibration_errors.mean(axis=1),
        has_interval=False,
    ),
    loss(
        "aurc",
        "Area under the risk-coverage curve",
        lambda drawn: drawn.risk_and_coverage[0],
        fewest_tiles=200,
        fewest_errors=12,
    ),
    Metric(
        "coverage_at_99_accuracy",
        "Coverage at 99 % accuracy, in hindsight",
        lambda drawn: drawn.risk_and_coverage[1],
        has_interval=False,
    ),
    counted("mean_one_vs_rest_accuracy", "One-vs-rest accuracy, mean of classes", _mean_one_vs_rest),
)
"""By name; of all classes together, the headline first."""

CLASS_METRICS = _table(
    share("sensitivity", "sensitivity", of_confusion.sensitivity, fewest_tiles=15, errors=missed, fewest_groups=2),
    share("specificity", "specificity", of_confusion.specificity, fewest_tiles=60, errors=falsely_called, fewest_groups=2),
    share("ppv", "PPV", of_confusion.ppv, fewest_tiles=15, errors=falsely_called, fewest_groups=2),
    share("npv", "NPV", of_confusion.npv, fewest_tiles=60, errors=missed, fewest_groups=2),
    counted("f1", "F1", of_confusion.f1_of_classes, errors=confused, fewest_groups=4),
    ranked(
        "auroc",
        "AUROC",
        lambda drawn: drawn.auroc_and_precision[0],
        errors=confused,
        fewest_errors=20,
        fewest_groups=6,
    ),
    ranked(
        "auprc",
        "AUPRC",
        lambda drawn: drawn.auroc_and_precision[1],
        errors=confused,
        fewest_errors=20,
        fewest_groups=6,
    ),
    share(
        "one_vs_rest_accuracy",
        "one-vs-rest accuracy",
        of_confusion.one_vs_rest_accuracy,
        fewest_tiles=60,
        errors=confused,
        fewest_groups=4,
        is_on_page=False,
    ),
)
"""By name; of each class against all others."""

_METRICS = {**OVERALL_METRICS, **CLASS_METRICS}


@dataclass(frozen=True, eq=False)
class ClassEvaluation:
    """One class against all others: its number of tiles and its metrics by name."""

    name: str
    n: int
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that is said of one scored set: metrics by name, ``balanced_accuracy`` first, and of each class in order."""

    predictions: Predictions
    overall: Mapping[str, Estimate]
    per_class: tuple[ClassEvaluation, ...]
    intervals: str

    def _repr_html_(self) -> str:
        from histo_mlflow.evaluation.notebook import rows_of, table_of  # which know of this

        return table_of(f"{len(self.predictions.labels)} tiles", rows_of(self))


def evaluate_predictions(predictions: Predictions, *, costs: Floats | None = None) -> Evaluation:
    """Return every metric with its 95 % interval, or without one where none is known to hold the truth in 95 of 100 studies.

    Args:
        predictions: Labels and probabilities.
        costs: ``(n_classes, n_classes)``, of calling a tile of the row's class the column's; None for the default.
    """
    units = Units(len(predictions.labels), predictions.groups)
    statistics = statistics_of(predictions, costs)
    values, spreads = units.value(statistics), units.spreads(statistics)
    has_any = are_enough(units)
    found = {
        name: [
            Estimate(
                value,
                *(
                    _limits(metric, k, value, spreads[name][k], predictions)
                    if has_any and metric.has_interval and not math.isnan(value)
                    else NO_LIMITS
                ),
            )
            for k, value in enumerate(np.atleast_1d(values[name]).tolist())
        ]
        for name, metric in _METRICS.items()
    }
    n_of_class = predictions.confusion.sum(axis=1)
    per_class = tuple(
        ClassEvaluation(of_class, int(n_of_class[k]), {name: found[name][k] for name in CLASS_METRICS})
        for k, of_class in enumerate(predictions.classes)
    )
    overall = {name: found[name][0] for name in OVERALL_METRICS}
    return Evaluation(predictions, overall, per_class, _describe_intervals(units, overall))


def are_enough(units: Units) -> bool:
    """Return whether there are so many units that an interval over them holds."""
    return units.groups is None or units.n >= FEWEST_GROUPS


def statistics_of(predictions: Predictions, costs: Floats | None = None, names: Iterable[str] = tuple(_METRICS)) -> Statistics:
    """Return the metrics of a set as a function of how often each tile counts, ``(n, n_tiles)``."""
    prepared = Prepared(predictions, default_costs(predictions.classes) if costs is None else costs)
    asked = [_METRICS[name] for name in names]

    def compute(counts: Weights) -> dict[str, Floats]:
        drawn = Drawn(prepared, counts)
        return {metric.name: metric.compute(drawn) for metric in asked}

    return compute


def _limits(metric: Metric, k: int, value: float, spread: Spread, predictions: Predictions) -> Limits:
    """Return the ends of the interval of a metric's `k`-th value, NaN where it has none."""
    confusion = predictions.confusion
    hits, n = metric.proportion(confusion) if metric.proportion else (np.nan, confusion.sum())
    if np.atleast_1d(n)[k if metric.proportion else 0] < metric.fewest_tiles:
        return NO_LIMITS
    if predictions.groups is not None:
        return _limits_over_groups(metric, k, value, spread, predictions)
    if metric.proportion is not None:
        found = wilson(int(np.atleast_1d(hits)[k]), int(np.atleast_1d(n)[k]))
        return found.low, found.high
    if metric.of_confusion is not None:
        observed = effective_number(value, metric.lowest, spread)
        n_tiles = effective_number_of_tiles(metric.of_confusion, k, confusion, metric.lowest, observed)
        return wilson_limits(value, metric.lowest, n_tiles, QUANTILE)
    if metric.fewest_errors:
        errors = int(metric.errors(predictions, k).sum())
        if errors < metric.fewest_errors:
            return NO_LIMITS
        spread = replace(spread, freedom=errors - 1.0)
    least = len(predictions.labels) / metric.tiles_per_freedom
    return _limits_of_spread(metric, value, replace(spread, freedom=max(spread.freedom, least)))


def _limits_over_groups(metric: Metric, k: int, value: float, spread: Spread, predictions: Predictions) -> Limits:
    if len(np.unique(np.asarray(predictions.groups)[metric.errors(predictions, k)])) < metric.fewest_groups:
        return NO_LIMITS
    least = _LEAST_FREEDOM_OF_CLASS if metric.name in CLASS_METRICS else 0.0
    spread = replace(spread, freedom=max(metric.freedom_by_groups * spread.freedom, least))
    if metric.proportion is not None or metric.of_confusion is not None:
        return wilson_limits(value, metric.lowest, effective_number(value, metric.lowest, spread), spread.quantile)
    return _limits_of_spread(metric, value, spread)


def _limits_of_spread(metric: Metric, value: float, spread: Spread) -> Limits:
    return log_limits(value, spread) if math.isnan(metric.lowest) else logit_limits(value, spread)


def _describe_intervals(units: Units, overall: Mapping[str, Estimate]) -> str:
    """Return how intervals were made, and which figures have none and why, in sentences."""
    if units.groups is None:
        words = (
            "Proportions: Wilson. What depends on the confusion matrix alone: Wilson with an effective number of tiles. All "
            "other figures: jackknife over tiles, log odds or logarithm, Student's t."
        )
        needed = "up to 200 tiles and 12 errors are needed, of a class 20"
    else:
        words = (
            f"All figures: jackknife over {units.describe()}; Wilson with an effective number of tiles, log odds or logarithm, "
            "Student's t."
        )
        needed = f"{FEWEST_GROUPS} groups are needed, some of them with errors (of a class 2 to 6), and up to 200 tiles"
    without = [OVERALL_METRICS[name] for name, each in overall.items() if each.is_defined and not each.has_interval]
    for reason, is_for_ever in ((f"Too few for an interval ({needed})", False), ("No interval is known that holds", True)):
        if named := [metric.words for metric in without if metric.has_interval is not is_for_ever]:
            words += f" {reason}: {'; '.join(named)}."
    return words
