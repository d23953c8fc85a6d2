"""Put the version back into Production that the present one has replaced."""

from histo_mlflow.console import say
from histo_mlflow.options import RollbackConfig
from histo_mlflow.tracking.decisions import ROLLED_BACK, Decision, carry_out, complete, version_before
from histo_mlflow.tracking.store import open_store


def rollback(config: RollbackConfig) -> None:
    """Run `rollback`; needs no comparison, for it returns to what was decided before."""
    store, name = open_store(), config.name.model_name
    completed = complete(store, name)
    if completed is not None and completed.what == ROLLED_BACK:  # this very command, given again
        say(f"rolled back: version {completed.version} of {name} is now in Production, was version {completed.incumbent}")
        return
    present, before = version_before(store, name)
    reason = config.why.stated_reason or f"back from version {present}"
    carry_out(store, name, Decision(ROLLED_BACK, before, present, reason))
    say(f"rolled back: version {before} of {name} is now in Production, was version {present}")
