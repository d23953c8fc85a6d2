"""The metrics, one entry of a table each, and their values with intervals; knows nothing of networks, files or runs.

What is added to a table is in every report, file and test of metrics at once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from histo_mlflow.evaluation import confusion as of_confusion
from histo_mlflow.evaluation.confusion import Counts, Proportion, mean_defined, ratio
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.evaluation.drawn import Drawn, Prepared
from histo_mlflow.evaluation.intervals import (
    N_RESAMPLES,
    Estimate,
    Floats,
    Resampling,
    Statistics,
    Weights,
    wilson,
    with_percentiles,
)
from histo_mlflow.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Metric:
    """One figure of merit.

    Attributes:
        name: In files and in the tracking store.
        words: On pages, in tables and on the model card.
        compute: From `n` resamples to ``(n,)``, or to ``(n, n_classes)`` if it is one of each class.
        proportion: From one confusion matrix to hits and of how many, if it is a proportion: where tiles are independent
            it has Wilson's interval. Any other has percentiles of the bootstrap.
        is_lower_better: Whether less is better.
        is_on_page: False if only files hold it.
    """

    name: str
    words: str
    compute: Callable[[Drawn], Floats]
    proportion: Callable[[Counts], Proportion] | None = None
    is_lower_better: bool = False
    is_on_page: bool = True


def _share(name: str, words: str, proportion: Callable[[Counts], Proportion], *, is_on_page: bool = True) -> Metric:
    return Metric(name, words, lambda drawn: ratio(*proportion(drawn.confusion)), proportion, is_on_page=is_on_page)


def _table(*metrics: Metric) -> Mapping[str, Metric]:
    return {metric.name: metric for metric in metrics}


OVERALL_METRICS = _table(
    Metric("balanced_accuracy", "Balanced accuracy", lambda drawn: of_confusion.balanced_accuracy(drawn.confusion)),
    _share("accuracy", "Accuracy (multi-class)", of_confusion.accuracy),
    Metric("macro_f1", "Macro F1", lambda drawn: of_confusion.macro_f1(drawn.confusion)),
    Metric("matthews_correlation", "Matthews correlation", lambda drawn: of_confusion.matthews_correlation(drawn.confusion)),
    Metric("cohens_kappa", "Cohen's kappa", lambda drawn: of_confusion.cohens_kappa(drawn.confusion)),
    Metric("macro_auroc", "Macro AUROC (one-vs-rest)", lambda drawn: mean_defined(drawn.auroc_and_precision[0])),
    Metric("macro_auprc", "Macro AUPRC (one-vs-rest)", lambda drawn: mean_defined(drawn.auroc_and_precision[1])),
    Metric("log_loss", "Log loss (nats)", lambda drawn: drawn.loss_and_squares[0], is_lower_better=True),
    Metric("brier_score", "Brier score (0 to 2)", lambda drawn: drawn.loss_and_squares[1], is_lower_better=True),
    Metric("expected_cost", "Expected cost per tile", lambda drawn: drawn.cost, is_lower_better=True),
    Metric("ece_top_label", "Calibration error, predicted class", lambda drawn: drawn.calibration_error, is_lower_better=True),
    Metric(
        "ece_classwise",
        "Calibration error, mean of classes",
        lambda drawn: drawn.calibration_errors.mean(axis=1),
        is_lower_better=True,
    ),
    Metric("aurc", "Area under the risk-coverage curve", lambda drawn: drawn.risk_and_coverage[0], is_lower_better=True),
    Metric("coverage_at_99_accuracy", "Coverage at 99 % accuracy", lambda drawn: drawn.risk_and_coverage[1]),
    Metric(
        "mean_one_vs_rest_accuracy",
        "One-vs-rest accuracy, mean of classes",
        lambda drawn: ratio(*of_confusion.one_vs_rest_accuracy(drawn.confusion)).mean(axis=1),
    ),
)
"""By name; of all classes together, the headline first."""

CLASS_METRICS = _table(
    _share("sensitivity", "sensitivity", of_confusion.sensitivity),
    _share("specificity", "specificity", of_confusion.specificity),
    _share("ppv", "PPV", of_confusion.ppv),
    _share("npv", "NPV", of_confusion.npv),
    Metric("f1", "F1", lambda drawn: of_confusion.f1_of_classes(drawn.confusion)),
    Metric("auroc", "AUROC", lambda drawn: drawn.auroc_and_precision[0]),
    Metric("auprc", "AUPRC", lambda drawn: drawn.auroc_and_precision[1]),
    _share("one_vs_rest_accuracy", "one-vs-rest accuracy", of_confusion.one_vs_rest_accuracy, is_on_page=False),
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


def evaluate_predictions(
    predictions: Predictions, *, costs: Floats | None = None, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Evaluation:
    """Return every metric with its interval.

    Without groups, proportions (accuracy and, of each class, sensitivity, specificity, PPV, NPV and one-vs-rest accuracy) have
    Wilson intervals and take tiles as independent; all others have percentiles of a bootstrap over tiles, stratified by class.
    With groups every interval is of a bootstrap over whole groups.

    Args:
        predictions: Labels and probabilities.
        costs: ``(n_classes, n_classes)``, of calling a tile of the row's class the column's; None for the default.
        seed: Of the bootstrap.
        n_resamples: Of the bootstrap.
    """
    resampling = Resampling(predictions.labels, predictions.groups, seed, n_resamples)
    statistics = statistics_of(predictions, costs)
    values, resampled = resampling.original(statistics), resampling.bootstrap(statistics)
    found = {name: _estimate(metric, predictions, values[name], resampled[name]) for name, metric in _METRICS.items()}
    n_of_class = predictions.confusion.sum(axis=1)
    per_class = tuple(
        ClassEvaluation(of_class, int(n_of_class[k]), {name: found[name][k] for name in CLASS_METRICS})
        for k, of_class in enumerate(predictions.classes)
    )
    first = "All figures" if predictions.groups is not None else "Proportions: Wilson. All other figures"
    words = f"{first}: percentiles of {resampling.describe()}"
    return Evaluation(predictions, {name: found[name][0] for name in OVERALL_METRICS}, per_class, words)


def statistics_of(predictions: Predictions, costs: Floats | None = None, names: Iterable[str] = tuple(_METRICS)) -> Statistics:
    """Return the metrics of a set as a function of how often each tile counts, ``(n, n_tiles)``."""
    prepared = Prepared(predictions, default_costs(predictions.classes) if costs is None else costs)
    asked = [_METRICS[name] for name in names]

    def compute(counts: Weights) -> dict[str, Floats]:
        drawn = Drawn(prepared, counts)
        return {metric.name: metric.compute(drawn) for metric in asked}

    return compute


def _estimate(metric: Metric, predictions: Predictions, value: Floats, resampled: Floats) -> list[Estimate]:
    """Return one estimate, or one of each class."""
    if metric.proportion is not None and predictions.groups is None:
        hits, n = map(np.atleast_1d, metric.proportion(predictions.confusion))
        return [wilson(int(each), int(of)) for each, of in zip(hits, n, strict=True)]
    columns = resampled.reshape(len(resampled), -1).T
    return [with_percentiles(float(each), of) for each, of in zip(np.atleast_1d(value), columns, strict=True)]
