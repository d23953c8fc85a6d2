"""Runs as the store has kept them: how one stands, what is nested in it, which process keeps it and whether that lives."""

import json
import os
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from histo_mlflow.base.liveness import SIGN_SECONDS, Process, giving_signs
from histo_mlflow.base.plain_values import build_plain, parse_json
from histo_mlflow.errors import SourceNotFoundError
from histo_mlflow.tracking.store_errors import found_or_none, suppressing_refusals

ENDED_TAG = "histo.ended"
"""How a run has ended: FINISHED, FAILED or KILLED."""
PROCESS_TAG = "histo.process"
"""By which every run names its process, as JSON."""
_EARLIER_TAGS = {
    "host": "histo.host", "boot": "histo.boot", "namespace": "histo.pid_namespace", "pid": "histo.pid",
    "started": "histo.process_started",
}  # fmt: skip
"""The same of runs of earlier versions."""
SIGN_TAG = "histo.alive"

PATIENCE = timedelta(minutes=5)
"""How long a run of another machine may give no sign before it counts as lost."""
_MAX_NESTED = 1000


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


def tags_of_this_process() -> dict[str, str]:
    """Return what names this process, and a first sign of life."""
    return {PROCESS_TAG: json.dumps(asdict(Process.of(os.getpid()))), SIGN_TAG: _now()}


def process_of(tags: Mapping[str, str]) -> Process | None:
    """Return the process that keeps a run, or None if its tags name none."""
    if PROCESS_TAG in tags:
        try:
            return build_plain(Process, parse_json(tags[PROCESS_TAG]))
        except ValueError:
            return None
    known = {name: tags.get(tag, "") for name, tag in _EARLIER_TAGS.items()}
    return Process(**{**known, "pid": int(known["pid"])}) if known["pid"].isdigit() else None  # type: ignore[arg-type]


def last_sign(tags: Mapping[str, str]) -> datetime | None:
    """Return when a run last gave a sign of life, in UTC, or None if it never did."""
    try:
        return datetime.fromisoformat(tags[SIGN_TAG])
    except (KeyError, ValueError):
        return None


def is_silent(tags: Mapping[str, str]) -> bool:
    """Return whether a run has given signs of life once and no longer does."""
    sign = last_sign(tags)
    return sign is not None and datetime.now(UTC) - sign > PATIENCE


def giving_signs_of(client: MlflowClient, run_id: str, *, every_seconds: float = SIGN_SECONDS) -> AbstractContextManager[None]:
    """Renew the run's sign of life while the block goes on."""
    return giving_signs(lambda: client.set_tag(run_id, SIGN_TAG, _now()), every_seconds=every_seconds)


def end_orphans(client: MlflowClient, experiment_id: str) -> None:
    """End as FAILED the runs of this machine whose process is gone (SIGKILL, power cut), which nobody else would.

    Runs of other containers of this name, or from before this machine was started anew, are judged by their signs of life.
    """
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=1000):
        tags = run.data.tags
        process = process_of(tags)
        if process is None:
            continue
        is_lost = not process.is_local and process.host == socket.gethostname() and is_silent(tags)
        if process.is_gone or is_lost:
            with suppressing_refusals():
                for each in (run, *runs_under(client, run)):  # a fold has FINISHED when its model is logged
                    end_models_of(client, each)
                client.set_tag(run.info.run_id, "error", "the process ended without notice")
                client.set_terminated(run.info.run_id, "FAILED")


def end_models_of(client: MlflowClient, run: Run) -> None:
    """Say of a model that was being logged when its run was cut short that this failed; nobody else would."""
    for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
        if model.status == LoggedModelStatus.PENDING:
            client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
