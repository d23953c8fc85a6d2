"""What a notebook shows of a job's result: a row for each thing that was found, by its kind; knows no single job."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from histo_mlflow.evaluation.metrics import Evaluation
from histo_mlflow.evaluation.notebook import Row, differences_of, headlines_of, table_of
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.tracking.found_pages import find_pages

_MOST_WORDS = 12
_NAMES = {
    "run_id": "run", "model_uri": "model", "val": "validation", "oof": "out of fold", "looks": "looks at this set",
    "best_val_loss": "best validation loss (nats)", "what": "decision", "incumbent": "in Production before",
}  # fmt: skip


def table_of_result(result: Any) -> str:
    """Return the table of a dataclass as HTML: its attributes, then the pages of its run."""
    return table_of(type(result).__name__.removesuffix("Result").lower(), _rows_of_result(result))


def _rows_of_result(result: Any) -> Iterator[Row]:
    for part in fields(result):
        yield from _rows(_named(part.name), getattr(result, part.name))
    if run_id := getattr(result, "run_id", None):
        with suppress(Exception):  # a store that has gone away is no reason to hide what is known
            found = find_pages(run_id)
            if found.address:
                yield Row("in MLflow", found.address, href=found.address)
            for file in found.files:
                yield _linked("page", file)


def _rows(what: str, value: Any) -> Iterator[Row]:
    if value is None:
        return
    if isinstance(value, Evaluation):
        yield from headlines_of(value, prefix=f"{what}: ")
    elif isinstance(value, Comparison):
        yield from differences_of(value)
    elif isinstance(value, pd.DataFrame):  # of folds
        yield from _lines(value.to_dict(orient="records"))
    elif isinstance(value, Sequence) and value and is_dataclass(value[0]):  # decisions
        yield from _lines(vars(each) for each in value)
    elif isinstance(value, Path):
        yield _linked(what, value)
    elif isinstance(value, Mapping):
        yield Row(what, _joined([f"{key}: {_short(each)}" for key, each in value.items()]))
    else:
        yield Row(what, _short(value))


def _lines(records: Iterable[Mapping[Any, Any]]) -> Iterator[Row]:
    """Yield a line for each record, which is called by its first entry."""
    for (name, number), *rest in (record.items() for record in records):
        told = [(key, each) for key, each in rest if each is not None and not str(key).startswith(("run_id", "nested"))]
        yield Row(f"{name} {number}", ", ".join(f"{_named(key)} {_short(each)}" for key, each in told))


def _named(key: str) -> str:
    return _NAMES.get(key, key.replace("_", " "))


def _linked(what: str, file: Path) -> Row:
    """Return a line with a path; a notebook's server hands out what lies below it, and only by a relative address."""
    if not file.is_relative_to(Path.cwd()):
        return Row(what, str(file))
    near = file.relative_to(Path.cwd())
    return Row(what, str(near), href=quote(near.as_posix()))


def _joined(words: Sequence[str]) -> str:
    rest = f" and {len(words) - _MOST_WORDS} more" if len(words) > _MOST_WORDS else ""
    return (", ".join(words[:_MOST_WORDS]) or "none") + rest


def _short(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _joined([_short(each) for each in value])
    return f"{value:.4g}" if isinstance(value, float) else str(value)
