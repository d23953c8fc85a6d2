"""Print every decision on a registered model: when, who, what, why."""

from histo_mlflow.base.escaping import visible
from histo_mlflow.console import format_table, say, warn
from histo_mlflow.options import HistoryConfig
from histo_mlflow.tracking.decisions import complete, read_history
from histo_mlflow.tracking.production import read_pointers
from histo_mlflow.tracking.store import read_store


def history(config: HistoryConfig) -> None:
    """Run `history`."""
    store, name = read_store(), config.name.model_name
    complete(store, name)
    rows = [
        [each.time[:19].replace("T", " "), each.version, each.what, each.incumbent or "-", each.user, each.reason]
        for each in read_history(store, name)
    ]
    widths = ["time (UTC)", "version", "decision", "before", "who"]
    lines = format_table(widths, [row[:5] for row in rows]).splitlines()
    told = [*lines[:2]]
    for line, row in zip(lines[2:], rows, strict=True):
        told += [line, *(f"    {visible(reason)}" for reason in row[5].split("; "))]
    say("\n".join(told))
    pointers = read_pointers(store.client, name)
    say(f"\nin Production: version {pointers.version or 'none'} of {name}")
    if not pointers.agree:
        warn(pointers.describe_disagreement())
