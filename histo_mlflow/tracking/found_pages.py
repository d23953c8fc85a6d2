"""Where a person finds what a run keeps: its pages as files, if they lie on this machine, or its address on a server."""

from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.tracking.addresses import address_of, local_place
from histo_mlflow.tracking.runs import Run
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
    run = Run(read_store(), run_id)
    folder = local_place(run, "")
    return Pages(address_of(run), tuple(sorted(folder.rglob("*.html"))) if folder else ())
