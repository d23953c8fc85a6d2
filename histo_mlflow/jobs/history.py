"""Print every decision on a registered model: when, who, what, why."""

from collections.abc import Sequence
from dataclasses import dataclass

from histo_mlflow.jobs import job
from histo_mlflow.options import JobOptions
from histo_mlflow.pipeline.decided import DecisionResult
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tracking.options import NameOptions


@dataclass(frozen=True)
class History(JobOptions):
    """Print who put which version into Production, when and why."""

    name: NameOptions


@dataclass(frozen=True)
class HistoryResult(Shown):
    """What was decided on a registered model.

    Attributes:
        model_name: What it is called.
        production: The version in Production, or None.
        decisions: The oldest first.
    """

    model_name: str
    production: str | None
    decisions: Sequence[DecisionResult]


@job("Decide what is in Production", 3, example="histo history")
def history(options: History) -> HistoryResult:
    """Print the decisions on a registered model, and return them."""
    from histo_mlflow.base.escaping import visible
    from histo_mlflow.console import format_table, say, warn
    from histo_mlflow.tracking.bars import describe_bar, read_bars
    from histo_mlflow.tracking.decisions import complete, read_history
    from histo_mlflow.tracking.production import read_pointers
    from histo_mlflow.tracking.store import read_store

    store, name = read_store(), options.name.model_name
    complete(store, name)
    decisions, bars = read_history(store, name), read_bars(store.client, name)
    rows = [[each.time[:19].replace("T", " "), each.version, each.what, each.incumbent or "-", each.user] for each in decisions]
    lines = format_table(["time (UTC)", "version", "decision", "before", "who"], rows).splitlines()
    told = [*lines[:2]]
    for line, decision in zip(lines[2:], decisions, strict=True):
        told += [line, *(f"    {visible(reason)}" for reason in decision.reason.split("; "))]
        told += [f"    {visible(words)}" for words in describe_bar(decision, bars)]
    say("\n".join(told))
    pointers = read_pointers(store.client, name)
    say(f"\nin Production: version {pointers.version or 'none'} of {name}")
    if not pointers.agree:
        warn(pointers.describe_disagreement())
    return HistoryResult(name, pointers.version, [DecisionResult.of(each) for each in decisions])
