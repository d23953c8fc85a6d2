"""Runs as the store has kept them: the one of an id, and those nested in one."""

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from histo_mlflow.errors import SourceNotFoundError
from histo_mlflow.tracking.store_errors import found_or_none

_MAX_NESTED = 1000

ENDED_TAG = "histo.ended"
"""How a run has ended: FINISHED, FAILED or KILLED."""


def state_of(run: Run) -> str:
    """Return how a run stands: RUNNING, FINISHED, FAILED or KILLED.

    MLflow's own label is FAILED for all whose `mlflow run` has failed (3.17.2, ``_maybe_set_run_terminated``: it means to leave
    alone what has ended, but compares a text with numbers).
    """
    label = str(run.info.status)
    return str(run.data.tags.get(ENDED_TAG, label)) if label == "FAILED" else label


def kept_run(client: MlflowClient, run_id: str, *, asked: str, advice: str = "`mlflow ui` shows what is there") -> Run:
    """Return the run of that id; raises `SourceNotFoundError` if there is none."""
    run = found_or_none(client.get_run, run_id)
    if run is None:
        raise SourceNotFoundError(f"{asked}: there is no run with this id; {advice}")
    return run


def runs_under(client: MlflowClient, parent: Run) -> list[Run]:
    """Return the runs that are nested in `parent`, the newest first."""
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"
    return list(client.search_runs([parent.info.experiment_id], query, max_results=_MAX_NESTED))
