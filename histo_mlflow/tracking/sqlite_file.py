"""The file of a SQLite store: where it is, how it is written, and whether the installed MLflow has to change it first."""

import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
from sqlalchemy.engine import make_url

from histo_mlflow.errors import StoreError

_MIGRATIONS = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
_REVISION = re.compile(r'^(revision|down_revision)\s*(?::[^=]+)?= *"(\w+)"', re.MULTILINE)
_LOCKED_SECONDS = 60


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a store, or None if it is no SQLite file."""
    if not uri.startswith("sqlite"):
        return None
    name = make_url(uri).database
    return Path(name) if name and name != ":memory:" else None


def use_write_ahead_log(file: Path) -> None:
    """Let readers read while somebody writes, and write about four times as fast."""
    with closing(sqlite3.connect(file, timeout=_LOCKED_SECONDS)) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")


def check_schema(file: Path) -> None:
    """Raise `StoreError` if another MLflow wrote the file: opening it would migrate it for good, or fail."""
    found = _revision_of(file)
    if found is None:
        return
    known = [dict(_REVISION.findall(each.read_text())) for each in _MIGRATIONS.glob("*.py")]
    if found not in {each.get("revision") for each in known}:
        raise StoreError(
            f"{file} was written by a newer MLflow than this one ({mlflow.__version__}); use that one, or another store"
        )
    if found in {each.get("down_revision") for each in known}:
        copy = shlex.join(["cp", str(file), f"{file}.backup"])
        raise StoreError(
            f"{file} was written by an older MLflow, which could not read it any more once it is changed for this one "
            f"({mlflow.__version__}); to change it: {copy} && mlflow db upgrade sqlite:///{file}"
        )


def _revision_of(file: Path) -> str | None:
    """Return the id of the last migration, or None where there is none to be read; MLflow then says why."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_LOCKED_SECONDS)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None
