"""Where a person finds what a run keeps: its pages as files, if they lie on this machine, or its address on a server."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.tracking.store import read_store


@dataclass(frozen=True)
class Pages:
    """What can be opened of a run.

    Attributes:
        address: Of the run on a tracking server; "" where there is none and `mlflow ui` shows it.
        files: Pages that lie on this machine.
    """

    address: str
    files: tuple[Path, ...]


def find_pages(run_id: str) -> Pages:
    """Return where the pages of a run are; raises `StoreError` where the store does not answer."""
    store = read_store()
    info = store.client.get_run(run_id).info
    is_server = store.uri.startswith(("http://", "https://"))
    address = f"{store.uri.rstrip('/')}/#/experiments/{info.experiment_id}/runs/{run_id}" if is_server else ""
    kept = urlsplit(str(info.artifact_uri))
    is_local = kept.scheme in {"", "file"}
    files = tuple(sorted(Path(unquote(kept.path)).rglob("*.html"))) if is_local else ()
    return Pages(hide_secrets(address), files)
