import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from histo_mlflow.base.liveness import Process
from histo_mlflow.errors import RequestError, SourceNotFoundError, StoreError
from histo_mlflow.tracking.kept import SIGN_TAG, tags_of_this_process
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store, alone_in, open_store, read_store
from tests.conftest import Histo, tags_of_process


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
    uri = f"sqlite:///{work / 'new' / 'mlflow.db'}"
    children = [_forked(lambda: _keep_a_run(uri)) for _ in range(4)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    runs = MlflowClient(uri).search_runs(["0"])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


def _keep_a_run(uri: str) -> None:
    mlflow.set_tracking_uri(uri)
    with open_run(open_store(), "first") as run:
        run.log_metrics({"a": 1.0})


def _forked(do: Callable[[], None]) -> int:
    """Return the number of a process that has all imports already, does one thing and ends with 0 if that was done."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            do()
            status = 0
        except Exception:  # pytest's own ends are not this process's
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("sqlite:////sys/none/mlflow.db", "folder can be written.*MLFLOW_TRACKING_URI"),
        ("file:./mlruns", "migrate-filestore"),
        ("http://127.0.0.1:1", "server runs.*MLFLOW_TRACKING_URI"),
    ],
)
def test_unusable_store_is_one_error(uri: str, advice: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(uri)
    with pytest.raises(StoreError, match=advice) as caught:
        open_store()
    assert "\n" not in str(caught.value)


def test_runs_of_vanished_processes_are_ended(store: Store) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    now, long_ago = {SIGN_TAG: tags_of_this_process()[SIGN_TAG]}, {SIGN_TAG: "2020-01-01T00:00:00+00:00"}
    other_container = tags_of_process(gone.pid, namespace="pid:[1]")
    own = Process.of(os.getpid())
    of_before = {
        "histo.host": own.host, "histo.pid": str(gone.pid), "histo.boot": own.boot, "histo.pid_namespace": own.namespace,
        "histo.process_started": own.started,
    }  # fmt: skip
    tags: dict[str, dict[str, str]] = {
        "gone": tags_of_process(gone.pid) | now,
        "number given again": tags_of_process(started="1") | now,
        "lost container of our name": other_container | long_ago,
        "machine started anew": tags_of_process(gone.pid, boot="before") | long_ago,
        "gone, and of an earlier version": of_before | now,
        "here": tags_of_process() | long_ago,
        "other container": other_container | now,
        "elsewhere": tags_of_process(gone.pid, boot="other", host="another machine") | long_ago,
        "of a version before that": {"histo.host": own.host, "histo.pid": str(gone.pid)},
        "of a damaged tag": {"histo.process": "{"} | long_ago,
    }
    ids = {name: store.client.create_run("0", tags=values).info.run_id for name, values in tags.items()}
    open_store()
    states = {name: store.client.get_run(run_id).info.status for name, run_id in ids.items()}
    assert states == dict.fromkeys(list(tags)[:5], "FAILED") | dict.fromkeys(list(tags)[5:], "RUNNING")
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


def test_who_only_reads_changes_and_creates_nothing(work: Path, store: Store) -> None:
    dead = tags_of_process(started="1")
    left = store.client.create_run("0", tags=dead).info.run_id
    store.client.delete_experiment_tag("0", "mlflow.experimentKind")
    assert read_store().client.get_run(left).info.status == "RUNNING"
    assert "mlflow.experimentKind" not in store.client.get_experiment("0").tags
    mlflow.set_tracking_uri(f"sqlite:///{work / 'none' / 'mlflow.db'}")
    with pytest.raises(SourceNotFoundError, match="no tracking store"):
        _ = read_store().client
    assert not (work / "none").exists()


@pytest.mark.parametrize("command", [["history"], ["export", "--data", "demo"]], ids=["history", "export"])
def test_commands_that_only_read_leave_an_empty_folder_empty(
    histo_here: Histo, work: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (work / "none").mkdir()
    monkeypatch.chdir(work / "none")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    for address in ("models:/histo-b3/Production", "models:/histo-b3/1") if command[0] == "export" else ("",):
        done = histo_here(*command, *(["--model", address] if address else []))
        assert (done.returncode, "there is no tracking store" in done.stderr) == (2, True), done.stderr
    assert not list((work / "none").iterdir())


@pytest.mark.parametrize("opens", [lambda: read_store().client, open_store], ids=["read", "write"])
@pytest.mark.parametrize(
    ("written_by", "advice"), [("old", r"cp .*mlflow\.db\.backup && mlflow db upgrade"), ("new", "newer MLflow")]
)
def test_a_store_of_another_mlflow_is_left_as_it_is(
    work: Path, opens: Callable[[], object], written_by: str, advice: str
) -> None:
    revision = "451aebb31d03" if written_by == "old" else "f" * 12
    with closing(sqlite3.connect(work / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.execute("DROP TABLE webhook_events")  # a table is missing: MLflow would migrate
    content = (work / "mlflow.db").read_bytes()
    with pytest.raises(StoreError, match=advice):
        opens()
    assert (work / "mlflow.db").read_bytes() == content


def test_a_lock_of_one_user_shuts_nobody_out(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the right to become another user")
    everybodys = work / "tmp"
    everybodys.mkdir()
    for folder in (*work.parents, work):
        if "pytest-" in str(folder):
            folder.chmod(0o755)
    everybodys.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(everybodys))
    for uri in ("http://127.0.0.1:1", f"sqlite:///{everybodys / 'mlflow.db'}"):
        for user in (2001, 2002, 0):
            child = _forked(lambda user=user, uri=uri: _lock(user, uri))  # type: ignore[misc]
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, (uri, user)


def _lock(user: int, uri: str) -> None:
    os.setuid(user)
    with alone_in(uri):
        pass


def test_a_locked_database_is_waited_for(
    store: Store, work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("histo_mlflow.tracking.sqlite_file._ATTEMPT_MS", 50)
    with open_run(store, "one") as run:
        other = sqlite3.connect(work / "mlflow.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(1.0, other.execute, ["COMMIT"])
        release.start()
        run.log_metrics({"a": 1.0, "b": 2.0})
        release.join()
        other.close()
    assert store.client.get_run(run.id).data.metrics == {"a": 1.0, "b": 2.0}
    told = [record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    assert told
    assert all("locked by another program; waiting" in message for message in told)


def test_what_the_store_refuses_is_told_with_what_to_do_about_it(store: Store) -> None:
    with open_run(store, "one") as run:
        pass
    store.client.delete_run(run.id)
    with pytest.raises(StoreError, match=f"mlflow runs restore --run-id {run.id}$"):
        run.log_metrics({"a": 1.0})
    with pytest.raises(StoreError, match=r"not found.*`mlflow ui` shows") as caught:
        store.client.get_registered_model("none")
    assert "disk" not in str(caught.value)
    with pytest.raises(StoreError, match="Names may only contain") as caught:
        store.client.log_metric(run.id, "a[b]", 1.0)
    assert "disk" not in str(caught.value)
    store.client.delete_experiment(store.client.create_experiment("gone"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoreError, match="mlflow experiments restore"):
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "gone")
        open_store()


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (401, "You are not authenticated", "MLFLOW_TRACKING_PASSWORD"),
        (403, "Permission denied", r"experiment 'Default': your login has no right to read it"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts"),
        (400, "no such thing", "no such thing"),
    ],
)
def test_what_a_server_answers_is_told_with_what_to_do_about_it(
    work: Path, monkeypatch: pytest.MonkeyPatch, status: int, body: str, advice: str
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mlflow.set_tracking_uri(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises((RequestError, StoreError), match=advice) as caught:
            open_store()
        server.shutdown()
    assert "disk" not in str(caught.value)
