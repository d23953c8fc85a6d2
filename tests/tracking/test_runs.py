import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from histo_mlflow.base.interruption import interruptible, shielded
from histo_mlflow.errors import Interrupted
from histo_mlflow.tracking.kept import PROCESS_TAG, process_of
from histo_mlflow.tracking.runs import Run, begun_run, open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import tags_of_process


def _status(store: Store, run_id: str) -> str:
    return str(store.client.get_run(run_id).info.status)


def test_a_finished_run_holds_what_was_sent(store: Store, work: Path) -> None:
    (work / "note.txt").write_text("x")
    with open_run(store, "one", tags={"colour": "pink"}) as run:
        run.log_params({"learning_rate": 1e-4, "register": True})
        run.log_metrics({"val/loss": 0.5, "val/accuracy": 0.9}, step=3)
        run.log_file(work / "note.txt", "notes")
    found = store.client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"learning_rate": "0.0001", "register": "true"}
    assert found.data.metrics == {"val/loss": 0.5, "val/accuracy": 0.9}
    assert store.client.get_metric_history(run.id, "val/loss")[0].step == 3
    assert found.data.tags["colour"] == "pink"
    assert [item.path for item in store.client.list_artifacts(run.id, "notes")] == ["notes/note.txt"]


def test_what_is_written_is_read_back_whole_or_was_never_there(store: Store) -> None:
    def half(file: Path) -> None:
        file.write_text("hal")
        raise ZeroDivisionError

    with open_run(store, "one") as run:
        run.write("note.txt", "é")
        run.write("notes/bytes", b"\x00")
        run.write("notes/deep/made", lambda file: file.write_text("by a function"))
        with pytest.raises(ZeroDivisionError):
            run.write("half.txt", half)
        with pytest.raises(ZeroDivisionError), run.draft("pictures") as folder:
            (folder / "first").write_text("drawn before the error")
            raise ZeroDivisionError
    assert run.read("note.txt", Path.read_bytes) == "é".encode()
    found = run.read("notes", lambda folder: {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()})
    assert found == {"bytes", "deep/made"}
    assert run.read("pictures/first", Path.read_text) == "drawn before the error"
    assert not run.has_file("half.txt")


def test_a_run_that_goes_on_logs_nothing_twice(store: Store) -> None:
    values = {"best/val_loss": 0.5, "val/ppv/TUM": float("nan"), "val/odds": float("inf")}
    with pytest.raises(Interrupted), open_run(store, "one") as run:
        run.log_metrics(values)
        raise Interrupted
    with open_run(store, "one", resumed=run):
        run.log_metrics({**values, "val/accuracy": 0.9})
        run.log_metrics({"best/val_loss": 0.25})
    histories = {
        name: [each.value for each in store.client.get_metric_history(run.id, name)] for name in (*values, "val/accuracy")
    }
    assert {name: len(values) for name, values in histories.items()} == {
        "best/val_loss": 2, "val/ppv/TUM": 1, "val/odds": 1, "val/accuracy": 1,
    }  # fmt: skip


class _Killed(BaseException):
    """The process has ended here."""


@pytest.mark.parametrize("step", range(5))
def test_a_run_that_a_kill_cuts_short_as_it_begins_names_its_process(store: Store, step: int) -> None:
    """Whichever write the kill comes before: what is RUNNING can be found to be dead."""
    with open_run(store, "ended", tags={"histo.fold": 1}) as ended:
        pass
    left = [step]

    def begin(resumed: Run | None) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("create_run", "log_batch", "update_run", "delete_tag", "set_terminated"):
                write = getattr(MlflowClient, name)

                def guarded(*args: object, write: Callable[..., object] = write, **kwargs: object) -> object:
                    left[0] -= 1
                    if left[0] < 0:
                        raise _Killed
                    return write(*args, **kwargs)

                patch.setattr(MlflowClient, name, guarded)
            with contextlib.suppress(_Killed), open_run(store, "one", tags={"histo.fold": 1}, resumed=resumed):
                raise _Killed

    store.client.set_tag(ended.id, PROCESS_TAG, tags_of_process(0)[PROCESS_TAG])
    for resumed in (None, Run(store, ended.id)):
        left[0] = step
        begin(resumed)
        for run in store.client.search_runs(["0"], "attributes.status = 'RUNNING'"):
            process = process_of(run.data.tags)
            assert process is not None
            assert (process.pid, run.data.tags["histo.fold"]) == (os.getpid(), "1")


def test_parameters_of_mlflow_run_keep_their_spelling(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = store.client.create_run("0").info.run_id
    store.client.log_param(begun, "learning_rate", "1e-4")
    monkeypatch.setenv("MLFLOW_RUN_ID", begun)
    with open_run(store, "one") as run:
        run.log_params({"learning_rate": 1e-4, "epochs": 3})
    assert run.id == begun
    assert store.client.get_run(begun).data.params == {"learning_rate": "1e-4", "epochs": "3"}
    with open_run(store, "two") as second:
        assert second.id != begun, "a run is adopted once"


@pytest.mark.parametrize("end", ["FINISHED", "FAILED", "KILLED", "deleted", "ours"])
def test_a_leftover_run_id_is_not_written_over(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    left = store.client.create_run("0").info.run_id
    if end == "deleted":
        store.client.delete_run(left)
    elif end == "ours":
        store.client.set_tag(left, "histo.entry_point", "train")
    else:
        store.client.set_terminated(left, end)
    monkeypatch.setenv("MLFLOW_RUN_ID", left)
    assert begun_run(store) is None
    with open_run(store, "one", tags={"histo.entry_point": "evaluate"}) as run:
        pass
    assert run.id != left
    assert f"MLFLOW_RUN_ID={left} names a run that has ended" in caplog.text
    assert store.client.get_run(left).data.tags.get("histo.entry_point", "none") == ("train" if end == "ours" else "none")


def test_nested_in_its_parent_and_in_the_callers_active_run(store: Store) -> None:
    with mlflow.start_run() as active:
        with open_run(store, "parent") as parent, open_run(store, "child", parent=parent) as child:
            pass
        assert mlflow.active_run().info.run_id == active.info.run_id
    tags = {run.id: store.client.get_run(run.id).data.tags["mlflow.parentRunId"] for run in (parent, child)}
    assert tags == {parent.id: active.info.run_id, child.id: parent.id}
    assert store.client.get_run(active.info.run_id).data.metrics == {}


def test_an_exception_fails_every_open_run_and_says_why(store: Store) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        open_run(store, "parent") as parent,
        open_run(store, "child", parent=parent) as child,
    ):
        _ = 1 / 0
    for run in (parent, child):
        assert _status(store, run.id) == "FAILED"
        assert store.client.get_run(run.id).data.tags["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_kills_every_open_run(store: Store, number: signal.Signals) -> None:
    with (
        pytest.raises(Interrupted, match=number.name),
        interruptible(),
        open_run(store, "parent") as parent,
        open_run(store, "child", parent=parent) as child,
    ):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal came too late")
    assert [_status(store, run.id) for run in (parent, child)] == ["KILLED", "KILLED"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_waits_for_a_shielded_block_and_a_second_one_is_ignored() -> None:
    done = []
    with pytest.raises(Interrupted), interruptible():
        with shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("block")
        done.append("after")
    assert done == ["block"]


def test_two_parts_of_one_set_stay_two_datasets(store: Store) -> None:
    with open_run(store, "one") as run:
        for split in ("train", "val"):
            run.log_dataset(name=f"tiles {split}", split=split, source="s", fingerprint="f" * 64, profile="{}")
    inputs = store.client.get_run(run.id).inputs.dataset_inputs
    assert {item.dataset.name: item.tags[0].value for item in inputs} == {"tiles train": "train", "tiles val": "val"}
    assert {item.dataset.digest for item in inputs} == {"f" * 36}


def test_a_value_from_a_yaml_is_told_beside_the_one_that_mlflow_run_logged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = store.client.create_run("0").info.run_id
    for name, value in {"learning_rate": "0.001", "epochs": "20", "data": "'a b.npz'"}.items():
        store.client.log_param(begun, name, value)
    monkeypatch.setenv("MLFLOW_RUN_ID", begun)
    with open_run(store, "one") as run:
        run.log_params({"learning_rate": 0.005, "epochs": 20, "data": "a b.npz"})
    params = store.client.get_run(begun).data.params
    assert {name for name in params if name.startswith("config/")} == {"config/learning_rate"}
    assert params["config/learning_rate"] == "0.005"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_gets_lost_comes_again() -> None:
    """Python drops what is raised in a finaliser; the signal must not be lost with it."""

    class Finaliser:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted), interruptible():
        Finaliser()
        time.sleep(20)
        raise AssertionError("the signal was lost")


@pytest.mark.parametrize(("begun_as", "name"), [("my experiment", "my experiment"), ("able-newt-960", "cv")])
def test_a_name_that_the_user_chose_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch, begun_as: str, name: str) -> None:
    begun = store.client.create_run("0", run_name=begun_as).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", begun)
    with open_run(store, "cv"):
        pass
    assert store.client.get_run(begun).info.run_name == name
