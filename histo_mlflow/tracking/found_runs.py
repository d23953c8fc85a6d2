"""Runs that are looked up: one to go on with, those nested in another, those that have looked at a labelled test set."""

from collections.abc import Mapping
from functools import partial

from mlflow.entities import Run as KeptRun
from mlflow.utils import get_results_from_paginated_fn
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from histo_mlflow.errors import RequestError
from histo_mlflow.tracking.kept import PATIENCE, is_silent, kept_run, last_sign, process_of, runs_under, state_of
from histo_mlflow.tracking.runs import LOOKS_TAG, Run
from histo_mlflow.tracking.store import Store
from histo_mlflow.tracking.store_errors import found_or_none

_FINGERPRINT_TAG = "histo.test_fingerprint"
_PAGE = 1000


def find_ended_run(store: Store, run_id: str, *, entry_point: str, take_over: bool = False) -> Run:
    """Return a run of that entry point that was ended before it had finished, or whose machine is lost.

    With `take_over` a run of another machine counts as lost however lately it gave a sign of life.

    Raises:
        SourceNotFoundError: There is no such run.
        RequestError: It is another entry point's, was deleted, has finished, or is still going on.
    """
    found = kept_run(store.client, run_id, asked=f"resume={run_id}")
    tags = found.data.tags
    begun_as = tags.get("histo.entry_point", "another program")
    if begun_as != entry_point or "histo.fold" in tags:
        whole = tags.get(MLFLOW_PARENT_RUN_ID)
        hint = f"its parent: resume={whole}" if whole else f"its own command: {begun_as}"
        raise RequestError(f"resume={run_id} was not begun by {entry_point} itself; go on with {hint}")
    if found.info.lifecycle_stage == "deleted":
        raise RequestError(f"resume={run_id} was deleted; bring it back with `mlflow runs restore --run-id {run_id}` first")
    if state_of(found) == "FINISHED":
        raise RequestError(f"resume={run_id} has finished; to learn on, start a new run from its weights: weights={run_id}")
    if state_of(found) == "RUNNING":
        _refuse_unless_lost(run_id, tags, take_over=take_over)
    return Run(store, run_id)


def _refuse_unless_lost(run_id: str, tags: Mapping[str, str], *, take_over: bool) -> None:
    process = process_of(tags)
    named = f"process {process.pid} on {process.host}" if process else "process unknown"
    if process and process.is_local:
        if not process.is_gone:
            raise RequestError(f"resume={run_id} is still going on ({named}); end that first")
        return
    if take_over or is_silent(tags):
        return
    sign = last_sign(tags)
    told = f"its last sign of life is of {sign:%Y-%m-%d %H:%M:%S} UTC" if sign else "it gives no signs of life"
    raise RequestError(
        f"resume={run_id} may still be going on ({named}, which can't be seen from here): {told}; it counts as lost "
        f"{PATIENCE.seconds // 60} minutes after the last one; if you know that it has ended, insist with take_over=true"
    )


def find_run(store: Store, run_id: str | None) -> Run | None:
    """Return the run of that id, or None if the store has none."""
    return None if run_id is None or found_or_none(store.client.get_run, run_id) is None else Run(store, run_id)


def find_run_at_rest(store: Store, run_id: str) -> KeptRun:
    """Return the run of that id, which has ended.

    Raises:
        SourceNotFoundError: There is no such run.
        RequestError: It is still going on.
    """
    found = kept_run(store.client, run_id, asked=run_id)
    if state_of(found) == "RUNNING":
        raise RequestError(f"{run_id} is still going on; give the command again when it has ended")
    return found


def nested_runs(parent: Run, tag: str) -> dict[int, Run]:
    """Return the runs under `parent` that have the number `tag`, by that number, in its order."""
    client = parent.store.client
    found = reversed(runs_under(client, client.get_run(parent.id)))  # of two with one number the newer counts
    numbered = {int(each.data.tags[tag]): each.info.run_id for each in found if tag in each.data.tags}
    return {number: Run(parent.store, numbered[number]) for number in sorted(numbered)}


def note_looks(run: Run, fingerprint: str, looks: int) -> None:
    """Note on `run` how often it has scored the labelled set so far: many looks make its figures optimistic."""
    run.set_tags({_FINGERPRINT_TAG: fingerprint, LOOKS_TAG: looks})


def count_looks(store: Store, fingerprint: str) -> int:
    """Return how often models were scored on the set with this fingerprint, in all experiments of the store."""
    experiment_ids = [experiment.experiment_id for experiment in store.client.search_experiments()]
    search = partial(store.client.search_runs, experiment_ids, f"tags.`{_FINGERPRINT_TAG}` = '{fingerprint}'")
    found = get_results_from_paginated_fn(  # type: ignore[no-untyped-call]
        lambda n, token: search(max_results=n, page_token=token), _PAGE
    )
    return sum(int(run.data.tags.get(LOOKS_TAG, 0)) for run in found)
