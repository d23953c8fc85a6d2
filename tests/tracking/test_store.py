import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from histo_mlflow.errors import StoreError
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.signs_of_life import (
    BOOT_TAG,
    HOST_TAG,
    NAMESPACE_TAG,
    PID_TAG,
    SIGN_TAG,
    STARTED_TAG,
    tags_of_this_process,
)
from histo_mlflow.tracking.store import Store, open_store
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


def test_runs_of_vanished_processes_are_ended(store: Store) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here, long_ago = tags_of_this_process(), {SIGN_TAG: "2020-01-01T00:00:00+00:00"}
    number_of_the_gone = here | {PID_TAG: str(gone.pid)}
    other_container = number_of_the_gone | {NAMESPACE_TAG: "pid:[1]"}
    tags: dict[str, dict[str, str]] = {
        "gone": number_of_the_gone,
        "number given again": here | {STARTED_TAG: "1"},
        "lost container of our name": other_container | long_ago,
        "machine started anew": number_of_the_gone | {BOOT_TAG: "before"} | long_ago,
        "here": here | long_ago,
        "other container": other_container,
        "elsewhere": number_of_the_gone | {BOOT_TAG: "other", HOST_TAG: "another machine"} | long_ago,
        "an earlier release's": {HOST_TAG: here[HOST_TAG], PID_TAG: str(gone.pid)},
    }
    ids = {name: store.client.create_run("0", tags=values).info.run_id for name, values in tags.items()}
    open_store()
    states = {name: store.client.get_run(run_id).info.status for name, run_id in ids.items()}
    assert states == dict.fromkeys(list(tags)[:4], "FAILED") | dict.fromkeys(list(tags)[4:], "RUNNING")
    assert "without notice" in store.client.get_run(ids["gone"]).data.tags["error"]


_ASK_FROM_OTHER_CONTAINER = """
import sys
from histo_mlflow.errors import RequestError
from histo_mlflow.tracking.found_runs import find_ended_run
from histo_mlflow.tracking.store import open_store
try:
    find_ended_run(open_store(), sys.argv[1], entry_point="train")
except RequestError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to make a PID namespace")
def test_a_live_run_is_not_taken_for_dead_from_another_container(store: Store, work: Path) -> None:
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", _ASK_FROM_OTHER_CONTAINER]
    with open_run(store, "train", tags={"histo.entry_point": "train"}) as run:
        done = subprocess.run([*inside, run.id], cwd=work, capture_output=True, text=True, timeout=120, check=True)
        assert "may still be going on" in done.stdout
        assert "take_over=true" in done.stdout
        assert store.client.get_run(run.id).info.status == "RUNNING"


def test_an_experiment_that_mlflow_ui_made_is_refused_with_the_way_out(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(work / "mlflow.db") as connection:
        connection.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
    connection.close()
    with pytest.raises(StoreError, match="MLFLOW_EXPERIMENT_NAME=histo"):
        open_store()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "histo")
    assert open_store().experiment_id != "0"
