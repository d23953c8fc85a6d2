"""The tracking store, made ready once; which store it is, MLflow decides from its own settings."""

import hashlib
import logging
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from histo_mlflow.errors import RequestError, StoreError, WorkError
from histo_mlflow.secrets import hide_secrets
from histo_mlflow.tracking.busy_database import wait_while_locked
from histo_mlflow.tracking.mirror import Mirror
from histo_mlflow.tracking.signs_of_life import end_orphans

_KIND_TAG = "mlflow.experimentKind"
_LOCK_SECONDS = 300


@dataclass(frozen=True)
class Store:
    """An open tracking store, the experiment that new runs go to, and where they are mirrored."""

    client: MlflowClient
    uri: str
    experiment_id: str
    mirror: Mirror | None = None


def open_store(*, mirror: Mirror | None = None) -> Store:
    """Return the store that MLflow's settings name, ready for use.

    The store is MLflow's default ``sqlite:///mlflow.db`` in the working folder, or ``MLFLOW_TRACKING_URI``; the experiment is
    ``MLFLOW_EXPERIMENT_ID``, ``MLFLOW_EXPERIMENT_NAME`` or MLflow's default. A SQLite file is created under a file lock,
    for two processes that create it at once break it, and is set to write-ahead logging, which makes writing about four
    times as fast and lets readers read meanwhile. Runs whose process was killed without notice are ended as FAILED.

    Raises:
        StoreError: The store can't be reached, created or written.
    """
    _quiet_libraries()
    wait_while_locked()
    uri = mlflow.get_tracking_uri()
    with reporting_store_errors(uri):
        with alone_in(uri):
            client = MlflowClient(uri)  # creates the tables of a new SQLite store
            store = Store(client, uri, _experiment_id(client), mirror)
            if file := _sqlite_file(uri):
                _use_write_ahead_log(file)
                _refuse_experiment_of_a_server(store)
            _show_as_training(store)
        end_orphans(client, store.experiment_id)
    return store


def _refuse_experiment_of_a_server(store: Store) -> None:
    # `mlflow ui` in an empty folder makes the default experiment its own: artifacts then go through that server only.
    experiment = store.client.get_experiment(store.experiment_id)
    if experiment.artifact_location.startswith("mlflow-artifacts:"):
        raise StoreError(
            f"experiment {experiment.name!r} was made by a server (`mlflow ui` before the first run), which alone can keep its "
            "files; leave the server running and set MLFLOW_TRACKING_URI=http://127.0.0.1:5000, or set "
            "MLFLOW_EXPERIMENT_NAME=histo to begin another"
        )


@contextmanager
def alone_in(uri: str) -> Iterator[None]:
    """Keep other processes of ours on this machine out of the block."""
    file = _sqlite_file(uri) or Path(tempfile.gettempdir()) / f"histo-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock", timeout=_LOCK_SECONDS):
        yield


@contextmanager
def reporting_store_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its libraries raise for an unusable store into one `StoreError`."""
    try:
        yield
    except (RequestError, WorkError):  # is one line already
        raise
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0][:300]
        raise StoreError(
            hide_secrets(
                f"the tracking store {uri} can't be used ({reason}); check that the folder can be written, the disk has "
                "room and the server runs, or name another with MLFLOW_TRACKING_URI"
            )
        ) from error


def _show_as_training(store: Store) -> None:
    # Without this tag MLflow's pages open on its tools for language models and call our runs evaluations.
    if _KIND_TAG not in store.client.get_experiment(store.experiment_id).tags:
        store.client.set_experiment_tag(store.experiment_id, _KIND_TAG, "custom_model_development")


def _experiment_id(client: MlflowClient) -> str:
    if chosen := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return chosen
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "active":
        return str(experiment.experiment_id)
    if experiment is not None:
        raise MlflowException(f"experiment {name!r} was deleted; restore it or set MLFLOW_EXPERIMENT_NAME to another")
    return str(client.create_experiment(name))


def _sqlite_file(uri: str) -> Path | None:
    if not uri.startswith("sqlite"):
        return None
    name = make_url(uri).database
    return Path(name) if name and name != ":memory:" else None


def _use_write_ahead_log(file: Path) -> None:
    connection = sqlite3.connect(file, timeout=60)
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _quiet_libraries() -> None:
    # MLflow draws a bar for every small file that it fetches.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Table creation logs every migration; stages are deprecated yet part of what we promise (docs/decisions/0002).
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs tracebacks of what it raises as well
    warnings.filterwarnings("ignore", message=".*transition_model_version_stage.*", category=FutureWarning)
