"""Where MLflow shows what is kept: the addresses of its pages, and what to do where no server is at hand."""

import shlex
from pathlib import Path

import mlflow
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.tracking.pages import page_of_run
from histo_mlflow.tracking.runs import Run
from histo_mlflow.tracking.sqlite_file import sqlite_file
from histo_mlflow.tracking.store import Store
from histo_mlflow.tracking.writes import Target

_UI = "http://127.0.0.1:5000"  # where `mlflow ui` shows its pages


def run_page(run: Run, artifact: str = "") -> str:
    """Return the page of a run, or of an artifact of it, as a link within MLflow's pages."""
    return page_of_run(run.experiment_id, run.id, artifact)


def address_of(run: Run) -> str:
    """Return the address of a run's page, or nothing where the store is a file that no server is known to show."""
    return whole_address(run.store, run_page(run)) if _has_server(run.store) else ""


def whole_address(store: Store, page: str) -> str:
    """Return the address of a page: of the server, or of `mlflow ui` where there is none."""
    return f"{hide_secrets(store.uri).rstrip('/') if _has_server(store) else _UI}/{page}"


def how_to_see(store: Store) -> str:
    """Return the command that shows the pages where no server does, or nothing."""
    if _has_server(store):
        return ""
    file = sqlite_file(store.uri)
    if file is not None and file.resolve() == Path("mlflow.db").resolve() and mlflow.get_tracking_uri() == store.uri:
        return "mlflow ui"
    return f"mlflow ui --backend-store-uri {shlex.quote(hide_secrets(store.uri))}"


def local_place(run: Run, artifact: str) -> Path | None:
    """Return the file of an artifact, or None where it is not kept on this machine."""
    kept = Target(run.store.client, run.id).artifacts
    if not isinstance(kept, LocalArtifactRepository):
        return None
    file = Path(kept.artifact_dir) / artifact
    return file if file.exists() else None


def _has_server(store: Store) -> bool:
    return store.uri.startswith("http")
