"""List runs: what each is called, how it stands, its figure, whether it can go on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from histo_mlflow.jobs import job
from histo_mlflow.options import JobOptions, option, stated

if TYPE_CHECKING:
    from histo_mlflow.tracking.listed_runs import ListedRun


@dataclass(frozen=True, kw_only=True)
class Runs(JobOptions):
    """List runs, the newest first: what each is called, how it stands, its balanced accuracy, whether it can go on.

    Wherever a run is named, the first characters of its id do, and so does `last`. Folds and trials are listed with their
    run in `mlflow ui`.
    """

    limit: int = option(20, "How many to list.", at_least=1)
    experiment: str = option("none", "Only those of this MLflow experiment; `none`: of all.")


@job("Keep", 0, example="histo runs --limit 5")
def runs(options: Runs) -> "Sequence[ListedRun]":
    """Print the runs, and return them."""
    from histo_mlflow.console import format_table, say
    from histo_mlflow.tracking.addresses import how_to_see, whole_address
    from histo_mlflow.tracking.listed_runs import list_runs
    from histo_mlflow.tracking.named_runs import SHORT_CHARACTERS
    from histo_mlflow.tracking.pages import runs_page
    from histo_mlflow.tracking.store import read_store

    store = read_store()
    listed = list_runs(store, limit=options.limit, experiment=stated(options.experiment))
    if not listed:
        say("there are no runs yet; begin with histo train --data TILES")
        return listed
    is_mixed = len({each.experiment for each in listed}) > 1
    rows = [
        [
            each.id[:SHORT_CHARACTERS],
            each.name,
            *([each.experiment] if is_mixed else []),
            each.job,
            each.state.lower(),
            each.figure,
            f"{each.begun:%Y-%m-%d %H:%M}",
            each.goes_on_with,
        ]
        for each in listed
    ]
    header = [
        "run",
        "name",
        *(["experiment"] if is_mixed else []),
        "job",
        "state",
        "balanced accuracy",
        "begun",
        "goes on with",
    ]
    say(format_table(header, rows, words={"name", "experiment", "job", "state", "goes on with"}))
    address = whole_address(store, runs_page(store.client.get_run(listed[0].id).info.experiment_id))
    say(" ".join(part for part in ("pages:", how_to_see(store), address) if part))
    return listed
