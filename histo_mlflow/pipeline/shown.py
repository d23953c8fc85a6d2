"""What a result looks like in a notebook: a small table of what was found, with intervals; everything in it is escaped."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

_HEADLINES = ("balanced_accuracy", "accuracy", "macro_auroc", "log_loss")
_MOST_LINES = 12
_WORDS = {
    "run_id": "run", "model_uri": "model", "val": "validation", "test": "test", "oof": "out of fold",
    "looks": "looks at this set", "best_val_loss": "best validation loss (nats)",
}  # fmt: skip


class Row(NamedTuple):
    """A line of the table: what, its value or its path, and what is said beside it."""

    what: str
    value: str
    beside: str = ""
    href: str = ""


class Shown:
    """A result that a notebook shows as a table: of a dataclass its attributes in order, then where its pages lie."""

    def _repr_html_(self) -> str:
        from histo_mlflow.evaluation.page import render

        title = type(self).__name__.removesuffix("Result").lower()
        return render("notebook.html.j2", {"title": title, "rows": list(self.shown_rows())})

    def shown_rows(self) -> Iterator[Row]:
        """Yield the lines of the table."""
        for part in fields(self):  # type: ignore[arg-type] # those who derive from this are dataclasses
            yield from _rows(_WORDS.get(part.name, part.name.replace("_", " ")), getattr(self, part.name))
        if run_id := getattr(self, "run_id", None):
            yield from _pages(run_id)


def _rows(what: str, value: Any) -> Iterator[Row]:
    """Yield what there is to say of an attribute, by its kind."""
    from histo_mlflow.evaluation.metrics import OVERALL_METRICS, Evaluation
    from histo_mlflow.evaluation.paired import Comparison
    from histo_mlflow.evaluation.wording import in_two_parts, signed

    if value is None:
        return
    if isinstance(value, Evaluation):
        for name in _HEADLINES:
            figure, interval = in_two_parts(value.overall[name])
            yield Row(f"{what}: {OVERALL_METRICS[name].words}", figure, f"95 %: {interval}" if interval else "no interval")
    elif isinstance(value, Comparison):
        for name, difference in value.differences.items():
            a, b = value.values[name]
            yield Row(OVERALL_METRICS[name].words, f"{a:.3f} → {b:.3f}", f"B minus A: {signed(difference)}")
    elif isinstance(value, Path):
        yield _linked(what, value)
    elif hasattr(value, "to_dict"):  # a table with a line for each fold
        for record in value.to_dict(orient="records"):
            name, *rest = record.items()
            yield Row(f"{name[0]} {name[1]}", ", ".join(f"{key} {_short(each)}" for key, each in rest if key != "run_id"))
    elif isinstance(value, Mapping):
        yield Row(what, _joined([f"{key}: {_short(each)}" for key, each in value.items()]))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield Row(what, _joined([_short(each) for each in value]))
    else:
        yield Row(what, _short(value))


def _pages(run_id: str) -> Iterator[Row]:
    from histo_mlflow.tracking.pages import find_pages

    with suppress(Exception):  # a store that has gone away is no reason to hide what is known
        found = find_pages(run_id)
        if found.address:
            yield Row("in MLflow", found.address, href=found.address)
        for file in found.files:
            yield _linked("page", file)


def _linked(what: str, file: Path) -> Row:
    """Return a line with a path; a notebook's server hands out what lies below it, and only by a relative address."""
    near = file.is_relative_to(Path.cwd())
    return Row(
        what, str(file.relative_to(Path.cwd()) if near else file), href=str(file.relative_to(Path.cwd())) if near else ""
    )


def _joined(words: Sequence[str]) -> str:
    rest = f" and {len(words) - _MOST_LINES} more" if len(words) > _MOST_LINES else ""
    return (", ".join(words[:_MOST_LINES]) or "none") + rest


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
