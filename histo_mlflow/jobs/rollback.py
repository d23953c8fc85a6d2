"""Put the previous version back into Production."""

from dataclasses import dataclass

from histo_mlflow.jobs import job
from histo_mlflow.options import JobOptions
from histo_mlflow.pipeline.decided import DecisionResult
from histo_mlflow.tracking.options import NameOptions, ReasonOptions


@dataclass(frozen=True)
class Rollback(JobOptions):
    """Put the previous version back into Production."""

    name: NameOptions
    why: ReasonOptions


@job("Decide what is in Production", 2, example="histo rollback --reason 'fails on the new scanner'")
def rollback(options: Rollback) -> DecisionResult:
    """Return to the version before and return the decision; needs no comparison, because that was decided before."""
    from histo_mlflow.console import say
    from histo_mlflow.tracking.decisions import ROLLED_BACK, Decision, carry_out, complete, version_before
    from histo_mlflow.tracking.store import open_store

    store, name = open_store(), options.name.model_name
    decision = complete(store, name)
    if decision is None or decision.what != ROLLED_BACK:  # else it is this very command, given again
        present, before = version_before(store, name)
        decision = Decision(ROLLED_BACK, before, present, options.why.stated or f"back from version {present}")
        carry_out(store, name, decision)
    say(f"rolled back: version {decision.version} of {name} is now in Production, was version {decision.incumbent}")
    return DecisionResult.of(decision)
