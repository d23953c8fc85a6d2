"""Patience with a SQLite file that another program keeps locked: MLflow gives up after 20 seconds, with pages of traceback."""

import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 600.0
_ATTEMPT_MS = 5000  # what a signal may have to wait for
_MLFLOW_SETS_ITS_OWN = "PRAGMA busy_timeout"


_files: set[str] = set()


def wait_while_locked(file: Path) -> None:
    """Let each statement to this SQLite file wait while the file is locked, and say so once a statement."""
    _files.add(str(file.absolute()))
    if not event.contains(Engine, "do_execute", _execute):
        event.listen(Engine, "do_execute", _execute)
        event.listen(Engine, "do_executemany", _execute_many)


def _execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    if not _is_ours(context):
        return False
    if statement.startswith(_MLFLOW_SETS_ITS_OWN):
        statement = f"{_MLFLOW_SETS_ITS_OWN} = {_ATTEMPT_MS}"
    return _insist(cursor.execute, statement, parameters)


def _execute_many(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    if not _is_ours(context):
        return False
    return _insist(cursor.executemany, statement, parameters)


def _is_ours(context: Any) -> bool:
    """Return whether a statement goes to a file that is waited for; other libraries have a patience of their own."""
    if context is None or context.dialect.name != "sqlite":
        return False
    database = context.root_connection.engine.url.database
    return bool(database) and str(Path(database).absolute()) in _files


def _insist(execute: Any, statement: str, parameters: Any) -> bool:
    """Carry the statement out and return True, which tells SQLAlchemy that it is done."""
    latest, is_told = time.monotonic() + _PATIENCE_SECONDS, False
    while True:
        try:
            execute(statement, parameters)
        except sqlite3.OperationalError as error:
            # BUSY_SNAPSHOT never passes by waiting: what the transaction has read is no longer true.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > latest:
                raise
            if not is_told:
                _log.warning("the database is locked by another program; waiting up to %d minutes", _PATIENCE_SECONDS / 60)
                is_told = True
        else:
            return True
