"""Runs that are named in short, by the first characters of their id or as the last one: found, or told what else there is."""

import os
from collections.abc import Iterator
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run

from histo_mlflow.errors import RequestError, SourceNotFoundError
from histo_mlflow.options import CV_RUN, MODEL, OWN_RUN, JobOptions, build, flatten
from histo_mlflow.tracking.registry import MODEL_URI_TAG
from histo_mlflow.tracking.short_names import LAST, is_short, naming_values, split_address
from histo_mlflow.tracking.store import read_store

OptionsT = TypeVar("OptionsT", bound=JobOptions)

ENTRY_POINT_TAG = "histo.entry_point"
SHORT_CHARACTERS = 8
"""So many characters of an id are shown; a thousand runs share them once in ten thousand stores."""

_LEARNING = ("train", "cv")
_PARTS = {"histo.fold", "histo.trial", "histo.repeat"}  # of what a user has begun
_PAGE, _MOST_NAMED = 100, 5


def with_whole_names(options: OptionsT, job: str) -> OptionsT:
    """Return the options with whole ids where runs are named in short, so that what is kept of them means the same for ever.

    Raises:
        SourceNotFoundError: There is no such run.
        RequestError: There are several.
    """
    client = read_store().client

    def in_full(name: str, kind: str, value: str) -> str:
        if not is_short(value):
            return value
        before, run, after = split_address(value)
        jobs = {OWN_RUN: (job,), CV_RUN: ("cv",), MODEL: _LEARNING}.get(kind, ())
        # Of several processes one may have begun the next run by now, which has no model yet.
        tag = MODEL_URI_TAG if kind == MODEL and not after else ENTRY_POINT_TAG
        return f"{before}{whole_id(client, run, asked=f'{name}={value}', jobs=jobs, tag=tag)}{after}"

    whole = {
        name: " ".join(in_full(name, kind, value) for value in given)
        for name, (kind, given) in naming_values(options).items()
        if any(map(is_short, given))
    }
    return build(type(options), flatten(options) | whole, given=options.given)


def whole_id(client: MlflowClient, short: str, *, asked: str, jobs: tuple[str, ...] = (), tag: str = ENTRY_POINT_TAG) -> str:
    """Return the id of the run that `short` means.

    ``last`` is the newest that the user has begun and that has this `tag`, of these `jobs` if any are given.

    Raises:
        SourceNotFoundError: There is no such run.
        RequestError: There are several; names them.
    """
    if short == LAST:
        newest = next((run for run in begun_runs(client, jobs) if tag in run.data.tags), None)
        if newest is None:
            raise SourceNotFoundError(
                f"{asked}: there is no run{f' of {chr(32).join(jobs)}' if jobs else ''} in this store yet"
            )
        return str(newest.info.run_id)
    query = f"attributes.run_id LIKE '{short}%'"
    found = list(client.search_runs(_experiments(client), query, max_results=_MOST_NAMED + 1))
    if len(found) == 1:
        return str(found[0].info.run_id)
    if not found:
        raise SourceNotFoundError(f"{asked}: no run has an id that begins so; `histo runs` lists them")
    named = ", ".join(f"{run.info.run_id[: len(short) + 4]} ({run.info.run_name})" for run in found[:_MOST_NAMED])
    more = " and others" if len(found) > _MOST_NAMED else ""
    raise RequestError(f"{asked}: several runs have an id that begins so: {named}{more}; give more of it")


def begun_runs(client: MlflowClient, jobs: tuple[str, ...] = (), *, experiment_ids: list[str] | None = None) -> Iterator[Run]:
    """Give the runs that users have begun, no folds and no trials, the newest first; of these `jobs` if any are given."""
    query = f"tags.`{ENTRY_POINT_TAG}` = '{jobs[0]}'" if len(jobs) == 1 else f"tags.`{ENTRY_POINT_TAG}` != 'none'"
    experiment_ids, token = experiment_ids or _experiments(client), None
    own = os.environ.get("MLFLOW_RUN_ID")  # which `mlflow run` has begun for this very command
    while True:
        page = client.search_runs(
            experiment_ids, query, max_results=_PAGE, order_by=["attributes.start_time DESC"], page_token=token
        )
        for run in page:
            is_wanted = not jobs or run.data.tags[ENTRY_POINT_TAG] in jobs
            if is_wanted and run.info.run_id != own and not _PARTS & run.data.tags.keys():
                yield run
        token = page.token
        if not token:
            return


def _experiments(client: MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments()]
