"""The tracking store, made ready once; which store it is, MLflow decides from its own settings."""

import hashlib
import logging
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.base.system import user_id
from histo_mlflow.errors import RequestError, SourceNotFoundError, StoreError
from histo_mlflow.tracking.kept import end_orphans
from histo_mlflow.tracking.options import MirrorOptions
from histo_mlflow.tracking.sinks import Mirror
from histo_mlflow.tracking.sqlite_file import check_schema, sqlite_file, use_write_ahead_log, wait_while_locked
from histo_mlflow.tracking.store_errors import (
    client_of,
    naming_what_is_refused,
    reporting_store_errors,
    suppressing_refusals,
)
from histo_mlflow.tracking.wandb_sink import Wandb

_KIND_TAG = "mlflow.experimentKind"
_LOCK_SECONDS = 300
_FOR_ALL = 0o666


@dataclass(frozen=True)
class Store:
    """A tracking store, the experiment that new runs go to (none where it is only read), and where they are mirrored."""

    uri: str
    experiment_id: str = ""
    mirrors: tuple[Mirror, ...] = ()

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client, whose calls raise `StoreError`; asking for it opens the store.

        Raises:
            SourceNotFoundError: There is no such file, which MLflow would create.
            StoreError: The store can't be reached, or was written by another MLflow.
        """
        if file := sqlite_file(self.uri):
            if not file.exists():
                raise SourceNotFoundError(
                    f"there is no tracking store {file}: nothing was kept here yet; go to the folder of your mlflow.db, or "
                    "name a store with MLFLOW_TRACKING_URI"
                )
            with reporting_store_errors(self.uri):
                check_schema(file)
        return client_of(self.uri)


def read_store() -> Store:
    """Return the store that MLflow's settings name for somebody who only reads: nothing is created, ended or changed."""
    _quiet_libraries()
    uri = mlflow.get_tracking_uri()
    if file := sqlite_file(uri):
        wait_while_locked(file)
    if hide_secrets(uri) != uri:
        # MLflow prints the address of each run that ends, password and all.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    return Store(uri)


def open_store(mirroring: MirrorOptions | None = None, *, experiment: str | None = None) -> Store:
    """Return the store that MLflow's settings name, ready for use, with the mirrors that are asked for.

    The store is MLflow's default ``sqlite:///mlflow.db`` in the working folder, or ``MLFLOW_TRACKING_URI``; the experiment is
    the one of the name `experiment`, else ``MLFLOW_EXPERIMENT_ID``, ``MLFLOW_EXPERIMENT_NAME`` or MLflow's default. A SQLite
    file is created under a file lock, for two processes that create it at once break it, and is set to write-ahead logging,
    which makes writing about four times as fast and lets readers read meanwhile. Runs whose process was killed without notice
    are ended as FAILED.

    Raises:
        RequestError: ``mlflow run`` has begun a run in another experiment than `experiment`.
        StoreError: The store can't be reached, created or written, or was written by another MLflow.
    """
    uri = read_store().uri
    with changing_experiment(uri, "read it, or to create it", experiment):
        with alone_in(uri):
            file = sqlite_file(uri)
            if file and file.exists():
                check_schema(file)
            client = client_of(uri)  # creates the tables of a new SQLite store
            chosen = _experiment(client, experiment)
            if file:
                use_write_ahead_log(file)
                _refuse_if_of_a_server(chosen)
            # Without this tag MLflow's pages open on its tools for language models and call our runs evaluations.
            if _KIND_TAG not in chosen.tags:
                with suppressing_refusals():
                    client.set_experiment_tag(chosen.experiment_id, _KIND_TAG, "custom_model_development")
        end_orphans(client, chosen.experiment_id)
    return Store(uri, chosen.experiment_id, (Wandb(),) if mirroring and mirroring.wandb else ())


@contextmanager
def changing_experiment(uri: str, right: str, named: str | None = None) -> Iterator[None]:
    """Name the experiment where the user lacks the `right` to do something in it."""
    chosen = repr(named) if named else os.environ.get("MLFLOW_EXPERIMENT_ID") or repr(_experiment_name())
    with naming_what_is_refused(f"experiment {chosen}", right), reporting_store_errors(uri):
        yield


def _refuse_if_of_a_server(experiment: Experiment) -> None:
    # `mlflow ui` in an empty folder makes the default experiment its own: artifacts then go through that server only.
    if experiment.artifact_location.startswith("mlflow-artifacts:"):
        raise StoreError(
            f"experiment {experiment.name!r} was made by a server (`mlflow ui` before the first run), which alone can keep its "
            "files; leave the server running and set MLFLOW_TRACKING_URI=http://127.0.0.1:5000, or set "
            "MLFLOW_EXPERIMENT_NAME=histo (or give experiment=histo) to begin another"
        )


@contextmanager
def alone_in(uri: str) -> Iterator[None]:
    """Keep other commands on this machine out of the block, those of other users where the system permits it."""
    file = sqlite_file(uri) or Path(tempfile.gettempdir()) / f"histo-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(f"{file}.lock", mode=_FOR_ALL).acquire(timeout=_LOCK_SECONDS)
    except PermissionError:  # in a folder like /tmp Linux lets nobody else open what one user has made
        lock = FileLock(f"{file}-{user_id()}.lock").acquire(timeout=_LOCK_SECONDS)
    with lock:
        yield


def _experiment(client: MlflowClient, named: str | None) -> Experiment:
    if chosen := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        begun_in = client.get_experiment(chosen)
        if named in {None, begun_in.name}:
            return begun_in
        if "MLFLOW_RUN_ID" in os.environ:
            raise RequestError(
                f"experiment={named}: `mlflow run` has begun this run in {begun_in.name!r} already; give the name to mlflow "
                f"run instead: --experiment-name {shlex.quote(str(named))}"
            )
    name = named or _experiment_name()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return client.get_experiment(client.create_experiment(name))
    if experiment.lifecycle_stage != "active":
        raise StoreError(
            f"experiment {name!r} was deleted; bring it back: mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}, or set MLFLOW_EXPERIMENT_NAME to another"
        )
    return experiment


def _experiment_name() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")


def _quiet_libraries() -> None:
    # Importing mlflow.pytorch sets the root logger to ERROR, which would drop what we log.
    logging.getLogger("histo_mlflow").setLevel(logging.INFO)
    # MLflow draws a bar for every small file that it fetches.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Table creation logs every migration.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs tracebacks of what it raises as well
