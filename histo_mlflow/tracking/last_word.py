"""Says that a run was killed after `mlflow run` has said that it failed: ``python -m ... STORE_URI RUN_ID PID STARTED``.

MLflow 3.17.2 sets every run to FAILED whose command ends with an error: its check for runs that were ended already compares the
status as text with a set of numbers (``projects/__init__.py``, ``_maybe_set_run_terminated``) and so never finds one. Only a
process that outlives `mlflow run` can put that right.
"""

import os
import subprocess
import sys
import time
from dataclasses import replace

from mlflow import MlflowClient

from histo_mlflow.base.liveness import Process

_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.2


def insist_on_killed(store_uri: str, run_id: str) -> None:
    """Start a process that waits for our parent, which is `mlflow run`, to end, and then ends the run as KILLED again."""
    parent = Process.of(os.getppid())
    subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", __name__, store_uri, run_id, str(parent.pid), parent.started],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C goes to the whole group of the terminal
    )


def _main(store_uri: str, run_id: str, pid: str, started: str) -> None:
    parent = replace(Process.of(int(pid)), started=started)
    end = time.monotonic() + _PATIENCE_SECONDS
    while not parent.is_gone and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    MlflowClient(store_uri).set_terminated(run_id, "KILLED")


if __name__ == "__main__":
    _main(*sys.argv[1:])
