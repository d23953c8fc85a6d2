"""Send what a tracking server has not got of a run, and of those nested in it, from the journal on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from histo_mlflow.errors import OptionError
from histo_mlflow.jobs import job
from histo_mlflow.options import RUN, JobOptions, option, stated


@dataclass(frozen=True, kw_only=True)
class Deliver(JobOptions):
    """Send what a tracking server could not take of a run while it was away.

    RUN is its id in MLflow; nothing is sent twice.
    """

    run: str = option(
        "none", "Id of a run that a server has not got all of, as the warning said, or `last`.", positional=True, names=RUN
    )


@job("Keep", 3, example="histo deliver 3f2b...")
def deliver(options: Deliver) -> Mapping[str, int]:
    """Send what is left of a run, and return how much of each kind that was."""
    from histo_mlflow.console import say
    from histo_mlflow.tracking.journal import deliver_left, journals_folder
    from histo_mlflow.tracking.kept import state_of
    from histo_mlflow.tracking.store import open_store

    run_id = stated(options.run)
    if run_id is None:
        raise OptionError(f"give the id of a run: histo deliver RUN_ID; {journals_folder()} has a folder for each that is left")
    store = open_store()
    sent = deliver_left(store, run_id)
    if not sent:
        say(f"nothing is left to deliver of run {run_id}")
    else:
        parts = ", ".join(f"{count} {noun}" for noun, count in sent.items())
        say(f"delivered to run {run_id}: {parts}; it is {state_of(store.client.get_run(run_id))}")
    return sent
