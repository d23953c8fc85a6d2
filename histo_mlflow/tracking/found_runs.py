"""Runs that are looked up: one to go on with, one nested in another."""

from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from histo_mlflow.errors import RequestError, SourceNotFoundError
from histo_mlflow.tracking.runs import Run
from histo_mlflow.tracking.store import HOST_TAG, PID_TAG, Store, reporting_store_errors


def find_ended_run(store: Store, run_id: str, *, entry_point: str) -> Run:
    """Return a run of that entry point that was ended before it had finished.

    Raises:
        SourceNotFoundError: There is no such run.
        RequestError: It is another entry point's, has finished, or is still going on.
    """
    try:
        found = store.client.get_run(run_id)
    except MlflowException:
        raise SourceNotFoundError(f"resume={run_id}: there is no run with this id; `mlflow ui` shows what is there") from None
    begun_as = found.data.tags.get("histo.entry_point", "nothing of ours")
    if begun_as != entry_point or "histo.fold" in found.data.tags:
        whole = found.data.tags.get(MLFLOW_PARENT_RUN_ID)
        hint = f"its parent: resume={whole}" if whole else f"its own command: {begun_as}"
        raise RequestError(f"resume={run_id} was not begun by {entry_point} itself; go on with {hint}")
    if found.info.status == "FINISHED":
        raise RequestError(f"resume={run_id} has finished; to learn on, start a new run from its weights: weights={run_id}")
    if found.info.status == "RUNNING":  # those whose process is gone were ended when the store was opened
        process = f"process {found.data.tags.get(PID_TAG, 'unknown')} on {found.data.tags.get(HOST_TAG, 'unknown')}"
        raise RequestError(f"resume={run_id} is still going on ({process}); end that first")
    return Run(store, run_id)


def find_nested_run(parent: Run, tag: str, value: object) -> Run | None:
    """Return the newest run under `parent` whose `tag` is `value`, or None."""
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.id}' AND tags.`{tag}` = '{value}'"
    with reporting_store_errors(parent.store.uri):
        found = parent.store.client.search_runs(
            [parent.store.client.get_run(parent.id).info.experiment_id], query, max_results=1
        )
    return Run(parent.store, found[0].info.run_id) if found else None
