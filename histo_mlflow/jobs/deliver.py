"""Send what a tracking server has not got of a run, and of those nested in it, from the journal on this machine."""

from histo_mlflow.console import say
from histo_mlflow.errors import OptionError
from histo_mlflow.options import DeliverConfig
from histo_mlflow.tracking.journal import deliver_left, journals_folder
from histo_mlflow.tracking.store import open_store


def deliver(config: DeliverConfig) -> None:
    """Run `deliver`."""
    run_id = config.delivery.run
    if run_id in {"", "none"}:
        raise OptionError(f"give the id of a run: histo deliver RUN_ID; {journals_folder()} has a folder for each that is left")
    store = open_store()
    sent = deliver_left(store, run_id)
    if not sent:
        say(f"nothing is left to deliver of run {run_id}")
        return
    parts = ", ".join(f"{count} {noun}" for noun, count in sent.items())
    say(f"delivered to run {run_id}: {parts}; it is {store.client.get_run(run_id).info.status}")
