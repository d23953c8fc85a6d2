"""Whether the tracking server answers at all: asked before anything heavy is imported or read, for seconds and no longer.

It must not import MLflow, nor anything that does: that alone takes a second.
"""

import os
import sys
import threading
from collections.abc import Callable

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import StoreError

PATIENCE_SECONDS = 4.0
"""For the whole question; a command has been told within five seconds."""
_DATABASES_WITH_A_LIMIT = ("postgresql", "mysql")  # whose drivers know `connect_timeout`
_REASON_CHARACTERS = 200
_OUT_OF_ORDER = range(502, 505)  # what a proxy says of a server that is away


def require_answer(*, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Return when the tracking server that MLflow's settings name has answered, whatever it says; a file needs no asking.

    Raises:
        StoreError: It has not.
    """
    uri = tracking_uri()
    ask = _question_to(uri)
    if ask is None:
        return
    told: list[str] = []

    def find_out() -> None:
        try:
            told.append(ask())
        except Exception as error:  # whatever a library makes of a server that is away
            told.append(_reason_of(error))

    # In a thread, for neither the look-up of a name nor a server that sends a byte now and then can be given a time.
    asking = threading.Thread(target=find_out, daemon=True, name="ask-tracking-server")
    asking.start()
    asking.join(patience_seconds)
    reason = " ".join(told[0].split())[:_REASON_CHARACTERS] if told else f"no answer within {patience_seconds:g} seconds"
    if reason:
        raise StoreError(
            hide_secrets(
                f"the tracking server {uri} does not answer ({reason}); start it or correct MLFLOW_TRACKING_URI; "
                "nothing was begun"
            )
        )


def tracking_uri() -> str:
    """Return the address of the store, or nothing for MLflow's own default, a file."""
    # Where MLflow has not been imported, nobody can have given it an address but by the variable.
    loaded = sys.modules.get("mlflow")
    return str(loaded.get_tracking_uri()) if loaded else os.environ.get("MLFLOW_TRACKING_URI", "")


def _question_to(uri: str) -> Callable[[], str] | None:
    """Return what asks a server and says what is wrong with it, or nothing; None where there is no server to be asked."""
    if uri.startswith(("http://", "https://")):
        return lambda: _ask_server(uri)
    if uri.startswith(_DATABASES_WITH_A_LIMIT):
        return lambda: _ask_database(uri)
    return None


def _ask_server(uri: str) -> str:
    import requests

    try:
        # Any page will do; whether its certificate is good, MLflow judges by its own settings.
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=PATIENCE_SECONDS, allow_redirects=False, stream=True)
    except requests.exceptions.SSLError:
        return ""
    return f"HTTP {answer.status_code}" if answer.status_code in _OUT_OF_ORDER else ""


def _ask_database(uri: str) -> str:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import OperationalError

    engine = create_engine(uri, connect_args={"connect_timeout": int(PATIENCE_SECONDS)})
    try:
        engine.connect().close()
    except OperationalError as error:
        said = str(error.orig)
        # A server that knows us not, or has no such database, has answered: MLflow's own errors name that.
        return "" if "FATAL" in said or "Access denied" in said else said
    finally:
        engine.dispose()
    return ""


def _reason_of(error: BaseException) -> str:
    """Return the innermost reason, which alone says what has happened: refused, or no such name."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = str(getattr(error, "strerror", None) or error)
    return text.partition("\n")[0] or type(error).__name__
