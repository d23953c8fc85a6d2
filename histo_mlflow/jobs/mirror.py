"""Send a run that has ended, and those nested in it, to Weights & Biases."""

from dataclasses import dataclass

from histo_mlflow.errors import WorkError
from histo_mlflow.jobs import job
from histo_mlflow.options import RUN, JobOptions, option


@dataclass(frozen=True, kw_only=True)
class MirrorRun(JobOptions):
    """Send a run that has ended to Weights & Biases.

    RUN is its id in MLflow, the first characters of it, or `last`; what is there already is not sent again.
    """

    run: str = option(
        "none",
        "A run that has ended, by the first characters of its id, or `last`; those nested in it are sent too.",
        positional=True,
        names=RUN,
        missing="give the id of a run, or `last`: histo mirror RUN_ID; `histo runs` lists them",
    )


@job("Keep", 2, example="histo mirror 3f2b...")
def mirror(options: MirrorRun) -> int:
    """Send a run and those nested in it, and return how many these are."""
    from histo_mlflow.console import say
    from histo_mlflow.tracking.found_runs import find_run_at_rest
    from histo_mlflow.tracking.options import MirrorOptions
    from histo_mlflow.tracking.sinks import replay
    from histo_mlflow.tracking.store import open_store

    store = open_store(MirrorOptions(wandb=True))
    kept = find_run_at_rest(store, options.run)
    (place,) = store.mirrors
    n_sent = replay(store.client, kept, place)
    if place.failure is not None:
        raise WorkError(f"the run was not sent: {place.failure}")
    say(f"{n_sent} run(s) mirrored")
    return n_sent
