"""Figures as tables that other programs can read."""

import pandas as pd

from histo_mlflow.evaluation.metrics import ClassFigures

_CLASS_COLUMNS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc", "one_vs_rest_accuracy")


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
