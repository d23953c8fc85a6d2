import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from histo_mlflow.errors import StoreError
from histo_mlflow.tracking.store import HOST_TAG, PID_TAG, open_store
from tests.conftest import PROJECT


def test_sqlite_gets_a_write_ahead_log(work: Path) -> None:
    open_store()
    with sqlite3.connect(work / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    connection.close()


def test_experiment_is_the_one_that_mlflow_names(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_store().experiment_id == "0"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    first, again = open_store().experiment_id, open_store().experiment_id
    assert first == again != "0"


def test_four_processes_may_create_the_same_store_at_once(work: Path) -> None:
    code = (
        "from histo_mlflow.tracking.store import open_store\n"
        "from histo_mlflow.tracking.runs import open_run\n"
        "with open_run(open_store(), 'first') as run: run.log_metrics({'a': 1.0})\n"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{work / 'new' / 'mlflow.db'}", "PYTHONPATH": str(PROJECT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=work, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    errors = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    runs = MlflowClient(environment["MLFLOW_TRACKING_URI"]).search_runs(["0"])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


@pytest.mark.parametrize("uri", ["sqlite:////sys/none/mlflow.db", "file:./mlruns", "http://127.0.0.1:1"])
def test_unusable_store_is_one_error(uri: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(uri)
    with pytest.raises(StoreError, match="MLFLOW_TRACKING_URI") as caught:
        open_store()
    assert "\n" not in str(caught.value)


def test_runs_of_vanished_processes_are_ended(work: Path) -> None:
    store = open_store()
    import socket

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    tags = {
        "gone": {HOST_TAG: socket.gethostname(), PID_TAG: str(gone.pid)},
        "here": {HOST_TAG: socket.gethostname(), PID_TAG: str(os.getpid())},
        "elsewhere": {HOST_TAG: "another machine", PID_TAG: str(gone.pid)},
    }
    ids = {name: store.client.create_run("0", tags=values).info.run_id for name, values in tags.items()}
    open_store()
    states = {name: store.client.get_run(run_id).info.status for name, run_id in ids.items()}
    assert states == {"gone": "FAILED", "here": "RUNNING", "elsewhere": "RUNNING"}
    assert "without notice" in store.client.get_run(ids["gone"]).data.tags["error"]


def test_an_experiment_that_mlflow_ui_made_is_refused_with_the_way_out(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(work / "mlflow.db") as connection:
        connection.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
    connection.close()
    with pytest.raises(StoreError, match="MLFLOW_EXPERIMENT_NAME=histo"):
        open_store()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "histo")
    assert open_store().experiment_id != "0"
