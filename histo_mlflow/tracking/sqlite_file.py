"""The file of a SQLite store: where it is, how it is written and waited for, whether another MLflow has written it."""

import logging
import re
import shlex
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url

from histo_mlflow.errors import StoreError

_MIGRATIONS = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
_REVISION = re.compile(r'^(revision|down_revision)\s*(?::[^=]+)?= *"(\w+)"', re.MULTILINE)
_PATIENCE_SECONDS = 600.0
_LOCKED_SECONDS = 60
_ATTEMPT_MS = 5000  # what a signal may have to wait for
_MLFLOW_SETS_ITS_OWN = "PRAGMA busy_timeout"
_log = logging.getLogger(__name__)
_waited_for: set[str] = set()


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


def wait_while_locked(file: Path) -> None:
    """Let each statement to this SQLite file wait while another program keeps it locked, and say so once a statement.

    MLflow gives up after 20 seconds, with pages of traceback.
    """
    if not _waited_for:
        for event_name, method in (("do_execute", "execute"), ("do_executemany", "executemany")):
            event.listen(Engine, event_name, partial(_insist, method))
    _waited_for.add(str(file.absolute()))


def _insist(method: str, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """Carry a statement to a file that is waited for out, and return whether that is done; else SQLAlchemy does it itself."""
    database = context.root_connection.engine.url.database if context and context.dialect.name == "sqlite" else None
    if not database or str(Path(database).absolute()) not in _waited_for:
        return False
    if statement.startswith(_MLFLOW_SETS_ITS_OWN):
        statement = f"{_MLFLOW_SETS_ITS_OWN} = {_ATTEMPT_MS}"
    latest, is_told = time.monotonic() + _PATIENCE_SECONDS, False
    while True:
        try:
            getattr(cursor, method)(statement, parameters)
        except sqlite3.OperationalError as error:
            # BUSY_SNAPSHOT never passes by waiting: what the transaction has read is no longer true.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > latest:
                raise
            if not is_told:
                _log.warning("the database is locked by another program; waiting up to %d minutes", _PATIENCE_SECONDS / 60)
                is_told = True
        else:
            return True
