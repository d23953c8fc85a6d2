"""Print every decision on a registered model: when, who, what, why."""

from histo_mlflow.config import HistoryConfig
from histo_mlflow.console import format_table, say
from histo_mlflow.tracking.decisions import read_history
from histo_mlflow.tracking.registry import production_version
from histo_mlflow.tracking.store import open_store


def history(config: HistoryConfig) -> None:
    """Run `history`."""
    store, name = open_store(), config.name.model_name
    rows = [
        [each.time[:19].replace("T", " "), each.version, each.what, each.incumbent or "-", each.user, each.reason]
        for each in read_history(store, name)
    ]
    widths = ["time (UTC)", "version", "decision", "before", "who"]
    lines = format_table(widths, [row[:5] for row in rows]).splitlines()
    told = [*lines[:2]]
    for line, row in zip(lines[2:], rows, strict=True):
        told += [line, *(f"    {reason}" for reason in row[5].split("; "))]
    say("\n".join(told))
    say(f"\nin Production: version {production_version(store.client, name) or 'none'} of {name}")
