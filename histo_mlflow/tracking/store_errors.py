"""What MLflow, its databases and the network raise, as one line that says what to do about this very fault."""

import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, ENOENT, EPERM, EROFS
from pathlib import Path
from typing import Any, TypeVar, cast

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import RequestError, StoreError, WorkError

T = TypeVar("T")

_NOT_THERE = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}
_REASON_CHARACTERS = 300
_OTHER = "or name another with MLFLOW_TRACKING_URI"
_PLACE = f"check that the folder can be written and the disk has room, {_OTHER}"
_ASK_FOR_RIGHT = (
    "ask who keeps the server for the right, or log in as another: MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD"
)

# What a text or the name of an error code tells, and what to do about it; the first that fits. None: the reason says it all.
_ADVICE: tuple[tuple[str, str | None], ...] = (
    (
        r"run '?(?P<id>[0-9a-f]{32})'? must be in the 'active' state",
        "it was deleted; bring it back: mlflow runs restore --run-id {id}",
    ),
    (
        r"experiment '?(?P<id>\d+)'? must be in the 'active' state",
        "it was deleted; bring it back: mlflow experiments restore --experiment-id {id}",
    ),
    (r"migrate-filestore", None),
    (r"Can't locate revision", "a newer MLflow wrote the database; use that one, or another store"),
    (
        r"out-of-date database schema",
        "a database that is newer than this MLflow can't be upgraded: use the MLflow that wrote it",
    ),
    (r"Invalid Host header", "start the server with --allowed-hosts and the name by which it is called"),
    (
        r"(?s)endpoint /\S*?/mlflow/(?P<right>[\w/-]+).*(403|PERMISSION_DENIED)",
        f"your login may not do this ({{right}}); {_ASK_FOR_RIGHT}",
    ),
    (r"PERMISSION_DENIED|error code 403", f"your login may not do this; {_ASK_FOR_RIGHT}"),
    (
        r"UNAUTHENTICATED|CUSTOMER_UNAUTHORIZED|error code 401",
        "log in with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    (r"file lock", "another histo command keeps it for minutes; end that, and go on"),
    (r"locked", "another program holds the database; end that, and go on"),
    (r"not a database|malformed", "the file is damaged; put a copy of it in its place"),
    (r"readonly database|unable to open database|disk I/O|disk is full|No space left", _PLACE),
    (
        r"Max retries exceeded|Connection refused|connection to server|Connection (aborted|reset)|timed out|error code 50[234]",
        f"check that the server runs and can be reached, {_OTHER}",
    ),
    (
        r"RESOURCE_DOES_NOT_EXIST|ENDPOINT_NOT_FOUND",
        "it may have been deleted, or be in another store; `mlflow ui` shows what is there",
    ),
    (r"INVALID_PARAMETER_VALUE|BAD_REQUEST|RESOURCE_ALREADY_EXISTS|INVALID_STATE", None),
)


@contextmanager
def reporting_store_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its libraries raise for an unusable store into one `StoreError`."""
    try:
        yield
    except (RequestError, WorkError):  # is one line already, though some are an OSError too
        raise
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0][:_REASON_CHARACTERS]
        advice = _advice_on(error, uri)
        message = f"the tracking store {uri} can't be used: {reason}{f'; {advice}' if advice else ''}"
        raise StoreError(hide_secrets(message)) from error


def client_of(uri: str) -> MlflowClient:
    """Return MLflow's client for a store; what a call raises because the store is unusable is a `StoreError`."""
    with reporting_store_errors(uri):
        return cast("MlflowClient", _ReportingClient(MlflowClient(uri), uri))


class _ReportingClient:
    def __init__(self, client: MlflowClient, uri: str) -> None:
        self._wrapped, self._uri = client, uri

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        return reporting_store_errors(self._uri)(found) if callable(found) else found


def found_or_none(ask: Callable[[str], T], name: str) -> T | None:
    """Return what `ask` finds, or None if the store answers that there is no such thing, or could be none."""
    try:
        return ask(name)
    except StoreError as error:
        if _code_of(error) not in _NOT_THERE:
            raise
        return None


@contextmanager
def suppressing_refusals() -> Iterator[None]:
    """Pass over what this user has no right to change."""
    try:
        yield
    except StoreError as error:
        if not _is_refusal(error):
            raise


@contextmanager
def naming_what_is_refused(what: str, right: str) -> Iterator[None]:
    """Turn a server's refusal, which names neither, into a `RequestError` that names the thing and the right that lacks."""
    try:
        yield
    except StoreError as error:
        if not _is_refusal(error):
            raise
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        raise RequestError(
            f"{what}: your login{f' ({user})' if user else ''} has no right to {right}; {_ASK_FOR_RIGHT}"
        ) from error


def _is_refusal(error: StoreError) -> bool:
    """Return whether it is about a right; that a server refuses its own name is not."""
    return _code_of(error) == ErrorCode.Name(PERMISSION_DENIED) and "Invalid Host header" not in str(error.__cause__)


def _code_of(error: StoreError) -> str:
    return str(getattr(error.__cause__, "error_code", ""))


def _advice_on(error: Exception, uri: str) -> str | None:
    if uri.startswith("http") and isinstance(error, OSError) and _is_out_of_reach(error):
        return (
            "the experiment keeps its files in a folder that this machine can't reach; let the server pass them on: "
            "mlflow server --serve-artifacts"
        )
    text = f"{getattr(error, 'error_code', '')} {error}"
    for pattern, advice in _ADVICE:
        if match := re.search(pattern, text):
            return advice.format(**match.groupdict()) if advice else None
    return _PLACE if isinstance(error, OSError) else f"check its address, {_OTHER}"


def _is_out_of_reach(error: OSError) -> bool:
    is_of_a_file = error.filename is not None and error.errno in {EACCES, EPERM, ENOENT, EROFS}
    return is_of_a_file and not Path(error.filename).is_relative_to(tempfile.gettempdir())
