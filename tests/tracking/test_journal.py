"""A tracking server that goes away: nothing is lost or doubled, nobody waits, and Ctrl-C ends at once."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE
from werkzeug.serving import BaseWSGIServer, make_server

from histo_mlflow.base.interruption import interruptible, shielded
from histo_mlflow.errors import Interrupted, RequestError, SourceNotFoundError, StoreError
from histo_mlflow.jobs.deliver import Deliver, deliver
from histo_mlflow.options import build
from histo_mlflow.tracking import journal, reach
from histo_mlflow.tracking.journal import journals_folder
from histo_mlflow.tracking.reach import Reach
from histo_mlflow.tracking.runs import Run, open_run
from histo_mlflow.tracking.store import Store, open_store
from tests.servers import free_port, tracking_server


class _Server:
    """MLflow's own server in this process, which can be shut, hang, answer 500, or carry out what it does not confirm."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.port, self.mode = free_port(), "well"
        self.n_more_writes: int | None = None
        self._app, self._server, self._woken = app, self._listen(), threading.Event()

    def _listen(self) -> BaseWSGIServer:
        server = make_server("127.0.0.1", self.port, self._answer, threaded=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if self.mode == "hangs":
            self._woken.wait(60)
        is_write = environ["REQUEST_METHOD"] != "GET" and not environ["PATH_INFO"].endswith("/search")
        keeps_quiet = self.mode == "keeps quiet" and is_write
        if keeps_quiet:
            b"".join(self._app(environ, lambda *_: None))
        if self.n_more_writes is not None and is_write:
            self.n_more_writes -= 1
        is_spent = is_write and self.n_more_writes is not None and self.n_more_writes < 0
        if is_spent or keeps_quiet or self.mode in {"hangs", "fails"}:
            start("500 Internal Server Error", [])
            return [b""]
        return self._app(environ, start)

    def go_away(self, way: str) -> None:
        if way == "shut":
            self._server.shutdown()
            self._server.server_close()
        self.mode = way

    def come_back(self) -> None:
        if self.mode == "shut":
            self._server = self._listen()
        self.mode = "well"
        self._woken.set()


@pytest.fixture
def server(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{work / 'mlflow.db'}")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(work / "kept"))
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tissue")
    from mlflow.server import app, handlers

    for name in ("_tracking_store", "_artifact_repo", "_model_registry_store"):
        monkeypatch.setattr(handlers, name, None)
    server = _Server(app.wsgi_app)
    address = f"http://127.0.0.1:{server.port}"
    MlflowClient(address).search_experiments()  # MLflow's server makes its own store that of its process, when first asked
    mlflow.set_tracking_uri(address)
    monkeypatch.setattr(reach, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(reach, "_TRUSTED_SECONDS", 0.0)
    monkeypatch.setattr(journal, "_POLL_SECONDS", 0.05)
    yield server
    server.come_back()
    server.go_away("shut")


@pytest.fixture
def served(server: _Server) -> Store:
    return open_store()


def _epoch(run: Run, epoch: int, work: Path) -> None:
    (work / "last.pt").write_text(f"state {epoch}")
    run.log_file(work / "last.pt", "checkpoints")
    run.log_metrics({"val/loss": 1 / epoch, "val/accuracy": float("nan")}, step=epoch)
    run.set_tags({"histo.test_looks": epoch})


def _steps(store: Store, run_id: str) -> list[int]:
    of_loss, of_accuracy = (
        [each.step for each in store.client.get_metric_history(run_id, name)] for name in ("val/loss", "val/accuracy")
    )
    assert of_loss == of_accuracy
    return of_loss


def _deliver(run_id: str) -> None:
    deliver(build(Deliver, {"run": run_id}))


@pytest.mark.parametrize("way", ["shut", "hangs", "fails", "keeps quiet"])
def test_what_is_written_meanwhile_follows_in_order_and_once(
    server: _Server, served: Store, work: Path, caplog: pytest.LogCaptureFixture, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "hangs":
        monkeypatch.setattr(reach, "_PAUSE_SECONDS", 5.0)
    with open_run(served, "one") as run:
        _epoch(run, 1, work)
        began = time.time()
        server.go_away(way)
        for epoch in (2, 3):
            _epoch(run, epoch, work)
        run.log_params({"epochs": 3, "learning_rate": 1e-4})
        run.set_tags({"histo.command": "cv --storage postgresql://me:S3cretPw@host/db"})
        run.log_dataset(name="tiles", split="train", source="s", fingerprint="f" * 64, profile="{}")
        away = time.time()
        assert away - began < 5, "a dead server must not hold up the training"
        folder = journals_folder() / run.id
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert [file.read_text() for file in folder.rglob("last.pt")] == ["state 3"], "older states are not piled up"
        assert not any("S3cretPw" in file.read_text() for file in folder.glob("*.json"))
        server.come_back()
        _epoch(run, 4, work)
    said = caplog.text
    assert (said.count("does not answer"), said.count("is back")) == (1, 1)
    assert not folder.exists()
    kept = served.client.get_run(run.id)
    assert _steps(served, run.id) == [1, 2, 3, 4]
    times = [each.timestamp for each in served.client.get_metric_history(run.id, "val/loss")]
    assert began * 1000 - 1 <= times[1] <= times[2] <= away * 1000, "metrics keep the time at which they were found"
    assert (kept.info.status, kept.data.tags["histo.test_looks"]) == ("FINISHED", "4")
    assert kept.data.params == {"epochs": "3", "learning_rate": "0.0001"}
    assert len(kept.inputs.dataset_inputs) == 1
    (work / "fetched").mkdir()
    assert run.fetch_file("checkpoints/last.pt", work / "fetched").read_text() == "state 4"


def _leave_behind(server: _Server, served: Store, work: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Return the ids of a run and of one nested in it whose last epoch and end the server has not got."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # so that nobody waits for it
    with (
        pytest.raises(StoreError, match="does not answer"),
        open_run(served, "parent") as parent,
        open_run(served, "child", parent=parent) as child,
    ):
        _epoch(child, 1, work)
        server.go_away("shut")
        _epoch(child, 2, work)
    return parent.id, child.id


def test_what_is_left_at_the_end_is_delivered_with_the_true_state(
    server: _Server,
    served: Store,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    parent, child = _leave_behind(server, served, work, monkeypatch)
    said = caplog.text
    assert f"histo deliver {parent}" in said
    assert f"--resume {parent}" in said
    with pytest.raises(StoreError):
        _deliver(parent)

    server.come_back()
    served.client.set_tag(child, "error", "the process ended without notice")  # what others conclude from the silence
    served.client.set_terminated(child, "FAILED")
    shutil.copytree(journals_folder(), work / "before")
    _deliver(parent)
    out = capsys.readouterr().out
    assert "1 row(s) of metrics" in out
    assert "it is FAILED" in out
    assert not list(journals_folder().iterdir())
    ended = served.client.get_run(child)
    assert (ended.info.status, "error" in ended.data.tags) == ("FINISHED", False)
    assert served.client.get_run(parent).data.tags["error"].startswith("StoreError: the tracking server")

    # As after a kill between what is sent and what is struck off.
    shutil.copytree(work / "before", journals_folder(), dirs_exist_ok=True)
    _deliver(parent)
    assert _steps(served, child) == [1, 2]
    _deliver(parent)
    assert "nothing is left" in capsys.readouterr().out


def test_delivery_that_is_cut_short_goes_on_where_it_has_stopped(
    server: _Server, served: Store, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, child = _leave_behind(server, served, work, monkeypatch)
    left = sorted((journals_folder() / child).glob("*.json"))
    for n_taken, entry in enumerate(left, start=1):
        server.come_back()
        server.n_more_writes = 2 if '"End"' in entry.read_text() else 1  # an end is a state and a tag
        with pytest.raises(StoreError):
            _deliver(parent)
        assert sorted((journals_folder() / child).glob("*.json")) == left[n_taken:]
        server.n_more_writes = None
    _deliver(parent)
    assert _steps(served, child) == [1, 2]
    assert served.client.get_run(child).info.status == "FINISHED"


def test_a_run_that_goes_on_delivers_for_itself(server: _Server, served: Store, work: Path) -> None:
    with open_run(served, "one") as run:
        server.go_away("fails")
        _epoch(run, 1, work)
        server.come_back()
        with pytest.raises(RequestError, match="still going on"):
            _deliver(run.id)
    assert _steps(served, run.id) == [1]
    with pytest.raises(SourceNotFoundError, match="no run with this id"):
        _deliver("0" * 32)


def test_what_the_server_refuses_is_no_matter_of_reach(served: Store, work: Path) -> None:
    with pytest.raises(StoreError), open_run(served, "one") as run:
        run.log_metrics({"val/loss[a]": 1.0})
    assert not (journals_folder() / run.id).exists()
    assert served.client.get_run(run.id).info.status == "FAILED"


def test_a_database_that_has_gone_away_is_out_of_reach_and_a_locked_file_is_not() -> None:
    gone = MlflowException("connection refused", error_code=TEMPORARILY_UNAVAILABLE)
    database, file = Reach("postgresql+psycopg://me@host/db"), Reach("sqlite:///mlflow.db")
    database.note_lost(gone)
    assert database.is_lost
    with pytest.raises(MlflowException):
        file.note_lost(gone)
    for refusal in (MlflowException("no", error_code=PERMISSION_DENIED), OSError(28, "No space left on device")):
        with pytest.raises(type(refusal)):
            Reach("http://127.0.0.1:5000").note_lost(refusal)


def test_a_pruned_run_waits_for_its_server(server: _Server, served: Store, work: Path) -> None:
    with pytest.raises(KeyError), open_run(served, "trial", stopped_by=KeyError) as run:
        _epoch(run, 1, work)
        server.go_away("fails")
        threading.Timer(0.5, server.come_back).start()
        raise KeyError("pruned")
    assert served.client.get_run(run.id).info.status == "KILLED"
    assert not list(journals_folder().iterdir())


def test_where_no_home_can_be_written_the_journal_lies_in_the_working_folder(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HISTO_JOURNAL_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(work / "state"))
    assert journals_folder() == work / "state" / "histo-mlflow" / "journal"
    (work / "state").write_text("no folder")
    assert journals_folder() == work / "histo-journal"


@pytest.mark.parametrize("way", ["shut", "hangs"])
@pytest.mark.parametrize("is_shielded", [False, True])
def test_ctrl_c_ends_within_five_seconds(server: _Server, served: Store, work: Path, way: str, is_shielded: bool) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted), interruptible(), open_run(served, "one") as run:
        server.go_away(way)
        timer.start()
        began = time.monotonic()
        with shielded() if is_shielded else nullcontext():
            served.client.get_run(run.id)  # MLflow tries for minutes
    assert time.monotonic() - began < 0.5 + 5
    server.come_back()
    _deliver(run.id)
    assert served.client.get_run(run.id).info.status == "KILLED"


@pytest.mark.slow
def test_training_goes_on_without_its_server_and_is_completed_later(
    work: Path, tiny_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_EXPERIMENT_NAME": "tissue",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # six seconds
    }

    def train(*options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "histo_mlflow", "train", *options]
        return subprocess.Popen(command, cwd=work, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def read_until(process: "subprocess.Popen[str]", text: str) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if text in line:
                return
        raise AssertionError(f"{text!r} was never said")

    options = ["--data", str(tiny_npz), "--weights", "none", "--batch-size", "9", "--epochs", "6"]
    with tracking_server(work, port) as address:
        process = train(*options)
        read_until(process, "epoch 1/6")
    # The server is back in time.
    read_until(process, "does not answer")
    read_until(process, "epoch 3/6")
    with tracking_server(work, port):
        rest, _ = process.communicate(timeout=200)
        assert process.returncode == 0, rest
        store = Store(address, "1")
        (whole,) = store.client.search_runs(["1"])
        assert whole.info.status == "FINISHED"
        assert _steps(store, whole.info.run_id) == [1, 2, 3, 4, 5, 6]
        process = train(*options)
        read_until(process, "epoch 1/6")
    # It stays away, and is back a day later.
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "epoch 6/6" in said
    run_id = said.partition("histo deliver ")[2][:32]
    assert f"--resume {run_id}" in said
    assert said.count("Error: ") == 1
    with tracking_server(work, port):
        process = train("--resume", run_id)
        rest, _ = process.communicate(timeout=200)
        assert process.returncode == 0, rest
        run = store.client.get_run(run_id)
        assert (run.info.status, "error" in run.data.tags) == ("FINISHED", False)
        assert _steps(store, run_id) == [1, 2, 3, 4, 5, 6]
        histories = [store.client.get_metric_history(each, "val/loss") for each in (whole.info.run_id, run_id)]
        assert [each.value for each in histories[0]] == [each.value for each in histories[1]]
        names = [
            {each.path for each in store.client.list_artifacts(each_id, "checkpoints")}
            for each_id in (whole.info.run_id, run_id)
        ]
        assert names[0] == names[1]
        assert not list(journals_folder().iterdir())
        # Ctrl-C while it is away.
        process = train(*options)
        read_until(process, "epoch 1/6")
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert process.returncode == 1
    assert "interrupted by SIGINT" in said
    killed = said.partition("histo deliver ")[2][:32]
    with tracking_server(work, port):
        done = subprocess.run(
            [sys.executable, "-m", "histo_mlflow", "deliver", killed], cwd=work, env=environment, text=True, capture_output=True
        )
        assert "it is KILLED" in done.stdout, done.stderr
