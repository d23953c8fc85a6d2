"""Send a run that has ended, and those nested in it, to Weights & Biases."""

from histo_mlflow.console import say
from histo_mlflow.errors import OptionError, WorkError
from histo_mlflow.options import MirrorConfig
from histo_mlflow.tracking.found_runs import find_run_at_rest
from histo_mlflow.tracking.replay import replay
from histo_mlflow.tracking.store import open_store
from histo_mlflow.tracking.wandb_sink import MirrorOptions


def mirror(config: MirrorConfig) -> None:
    """Run `mirror`."""
    if config.replay.run in {"", "none"}:
        raise OptionError("give the id of a run: histo mirror RUN_ID; `mlflow ui` shows them")
    store = open_store(MirrorOptions(wandb=True))
    kept = find_run_at_rest(store, config.replay.run)
    (place,) = store.mirrors
    n_sent = replay(store, kept, place)
    if place.failure is not None:
        raise WorkError(f"the run was not sent: {place.failure}")
    say(f"{n_sent} run(s) mirrored")
