"""Whether a tracking server answers: asked shortly, and while it does not, only now and then."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import requests
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException

from histo_mlflow.base.secrets import hide_secrets

_log = logging.getLogger(__name__)

ANSWER_SECONDS = 2
_TRUSTED_SECONDS = 1.0
_PAUSE_SECONDS = 5.0
_SERVER_ERROR = 500


class Reach:
    """What is known in this process of one tracking store.

    Attributes:
        uri: The store.
        is_lost: Whether something could not be sent, and has not been sent since.
        is_given_up: Whether it was waited for since then, for as long as is reasonable.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.is_lost = self.is_given_up = False
        self._did_answer = True
        self._known_until = 0.0

    def answers(self, ask: Callable[[], object], *, now: bool = False) -> bool:
        """Return whether the server answers to `ask`; what was found out a moment ago holds unless it must be known `now`."""
        if time.monotonic() < self._known_until and (self._did_answer or not now):
            return self._did_answer
        if not self.is_lost and not self.uri.startswith("http"):
            return True
        try:
            with trying_once(ANSWER_SECONDS):
                ask()
        except Exception as error:
            self.note_lost(error)
            return False
        self._did_answer, self._known_until = True, time.monotonic() + _TRUSTED_SECONDS
        return True

    def note_lost(self, error: Exception) -> None:
        """Note that a call has found nobody, and say so once; raise every other `error`: a refusal is an answer."""
        if not _is_unreachable(error, self.uri):
            raise error
        if not self.is_lost:
            _log.warning(
                "the tracking server %s does not answer; the work goes on, and what is to be written is kept on this machine "
                "until it does",
                hide_secrets(self.uri),
            )
        self.is_lost = True
        self._did_answer, self._known_until = False, time.monotonic() + _PAUSE_SECONDS


reach_of = cache(Reach)
"""What is known of the store of that address."""


def patience_seconds() -> float:
    """Return for how long MLflow's own settings let a call wait for a server."""
    factor, retries = (each.get() for each in (MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, MLFLOW_HTTP_REQUEST_MAX_RETRIES))  # type: ignore[no-untyped-call]
    return float(factor * (2**retries - 1))


@contextmanager
def trying_once(seconds: int | None = None) -> Iterator[None]:
    """Keep MLflow from trying again for minutes: whoever calls can wait otherwise, and knows what to do meanwhile.

    Without `seconds`, what the user has set of retries and timeouts holds.
    """
    wanted = {MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "0"}
    if seconds is None:
        wanted = {name: value for name, value in wanted.items() if name not in os.environ}
    else:
        wanted[MLFLOW_HTTP_REQUEST_TIMEOUT.name] = str(seconds)
    before = {name: os.environ[name] for name in wanted if name in os.environ}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted.keys() - before.keys():
            os.environ.pop(name, None)
        os.environ.update(before)


def _is_unreachable(error: BaseException, uri: str) -> bool:
    """Return whether nobody has answered, or a server that is out of order; MLflow wraps what it has met."""
    if uri.startswith(("sqlite", "file")):
        return False
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError)):
            return True
        if isinstance(each, requests.HTTPError) and each.response is not None:
            return bool(each.response.status_code >= _SERVER_ERROR)
        if isinstance(each, MlflowException) and each.error_code == "TEMPORARILY_UNAVAILABLE":
            return True  # a database that has gone away
        each = each.__cause__ or each.__context__
    return False
