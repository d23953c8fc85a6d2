"""What a notebook shows of figures: rows of a small table, with intervals; everything in it is escaped."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from histo_mlflow.base.counting import many
from histo_mlflow.evaluation.metrics import OVERALL_METRICS, Evaluation
from histo_mlflow.evaluation.page import render
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.evaluation.wording import in_two_parts, in_words, signed

_HEADLINES = ("balanced_accuracy", "accuracy", "macro_auroc", "log_loss")


class Row(NamedTuple):
    """A line of the table: what, its value or its path, what is said beside it, and where the value leads."""

    what: str
    value: str
    beside: str = ""
    href: str = ""


def table_of(title: str, rows: Iterable[Row]) -> str:
    """Return the table as HTML."""
    return render("notebook.html.j2", {"title": title, "rows": list(rows)})


def headlines_of(evaluation: Evaluation, *, prefix: str = "") -> Iterator[Row]:
    """Yield the figures that are read first."""
    for name in _HEADLINES:
        value, interval = in_two_parts(evaluation.overall[name])
        yield Row(f"{prefix}{OVERALL_METRICS[name].words}", value, f"95 %: {interval}" if interval else "no interval")


def rows_of(evaluation: Evaluation) -> Iterator[Row]:
    """Yield the figures that are read first, and how much of each class is found."""
    yield from headlines_of(evaluation)
    for each in evaluation.per_class:
        words = [f"{name} {in_words(each.estimates[name])}" for name in ("sensitivity", "specificity")]
        yield Row(each.name, many(each.n, "tile"), ", ".join(words))


def differences_of(comparison: Comparison) -> Iterator[Row]:
    """Yield the figures of two models and how they differ."""
    for name, difference in comparison.differences.items():
        a, b = comparison.values[name]
        yield Row(OVERALL_METRICS[name].words, f"{a:.3f} → {b:.3f}", f"B minus A: {signed(difference)}")
