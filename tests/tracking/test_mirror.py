"""The mirror to W&B with its real package, offline, and with everything that can go wrong."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from histo_mlflow.tracking.store import open_store
from tests.conftest import PROJECT, Histo
from tests.wandb_records import Recorded, read_all

pytest.importorskip("wandb")
SHORT = ["--weights", "none", "--epochs", "2", "--aug-cutoff", "1", "--register", "false", "--keep-checkpoints", "best"]


@pytest.fixture(autouse=True)
def _no_account(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where nobody has logged in."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(work))
    monkeypatch.setenv("NETRC", str(work / "none"))


def _check_history(client: MlflowClient, run_id: str, recorded: Recorded, *, n_epochs: int) -> None:
    rows = {row["epoch"]: row for row in recorded.history if "val/loss" in row}
    assert list(rows) == list(range(1, n_epochs + 1))
    for name in ("train/loss", "val/loss", "val/balanced_accuracy", "learning_rate"):
        kept = {each.step: each.value for each in client.get_metric_history(run_id, name)}
        assert {epoch: row[name] for epoch, row in rows.items()} == pytest.approx(kept)


@pytest.mark.usefixtures("small_network")
def test_a_training_is_mirrored_live_and_replayed_the_same(work: Path, tiny_npz: Path, histo: Histo) -> None:
    done = histo("train", "--data", tiny_npz, *SHORT, "--wandb", "true")
    assert done.returncode == 0, done.stderr
    assert "wandb sync wandb/offline-run-" in done.stdout
    assert "no W&B key" in done.stdout
    client = open_store().client
    [run] = client.search_runs(["0"])
    [recorded] = read_all(work).values()
    about = recorded.about
    assert (about["id"], about["name"], about["job"]) == (run.info.run_id, run.info.run_name, "train")
    assert re.fullmatch(r"tiny efficientnet_b3 .* val 0\.\d+", about["name"])
    assert about["notes"].startswith(run.data.tags["mlflow.note.content"].partition("\n")[0])
    assert f"run {run.info.run_id} in sqlite:///" in about["notes"]
    assert "](#/" not in about["notes"], "a link within MLflow's pages leads nowhere from here"
    assert recorded.config["epochs"] == 2
    assert recorded.config["data"] == str(tiny_npz)
    _check_history(client, run.info.run_id, recorded, n_epochs=2)
    assert recorded.summary["best/val_loss"] == pytest.approx(run.data.metrics["best/val_loss"])
    shown = {name for row in recorded.history for name, value in row.items() if isinstance(value, dict)}
    assert {"curves", "evaluation/val/confusion_matrix", "evaluation/val/per_class"} <= shown
    assert recorded.exit_code == 0
    assert "offline-run" in run.data.tags["histo.wandb"]

    (work / "wandb").rename(work / "first")
    done = histo("mirror", run.info.run_id)
    assert done.returncode == 0, done.stderr
    [again] = read_all(work).values()
    assert again.about == recorded.about
    _check_history(client, run.info.run_id, again, n_epochs=2)
    assert again.summary["best/val_loss"] == recorded.summary["best/val_loss"]


@pytest.mark.slow
def test_folds_and_trials_are_runs_of_one_group(work: Path, tiny_npz: Path, histo: Histo) -> None:
    done = histo("cv", "--data", tiny_npz, *SHORT, "--folds", "2", "--wandb", "true")
    assert done.returncode == 0, done.stderr
    search = ["--data", str(tiny_npz), "--weights", "none", "--epochs", "2", "--trials", "2", "--repeats", "0"]
    script = str(PROJECT / "tuning" / "search.py")
    command = [sys.executable, script, *search, "--wandb", "true"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert found.returncode == 0, found.stderr
    client = open_store().client
    runs = {run.info.run_id: run for run in client.search_runs(["0"])}
    recorded = read_all(work)
    assert set(recorded) == set(runs)
    assert len(runs) == 6
    for run_id, run in runs.items():
        parent = run.data.tags.get("mlflow.parentRunId")
        assert recorded[run_id].about["group"] == (parent or run_id)
        assert recorded[run_id].about["name"] == run.info.run_name
        assert recorded[run_id].exit_code == (0 if run.info.status == "FINISHED" else 255)
        if parent:
            n_epochs = len(client.get_metric_history(run_id, "val/loss"))
            _check_history(client, run_id, recorded[run_id], n_epochs=n_epochs)

    (parent,) = (run_id for run_id, run in runs.items() if "2-fold" in run.info.run_name)
    (work / "wandb").rename(work / "first")
    done = histo("mirror", parent)
    assert "3 run(s) mirrored" in done.stdout, done.stderr
    assert {run.about["group"] for run in read_all(work).values()} == {parent}


@pytest.mark.slow
def test_its_process_may_die_in_the_middle(work: Path, tiny_npz: Path) -> None:
    asked = ["--data", str(tiny_npz), *SHORT, "--epochs", "8", "--wandb", "true"]
    command = [sys.executable, "-m", "histo_mlflow", "train", *asked]
    training = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert training.stdout is not None
    for line in training.stdout:
        if line.startswith("epoch"):
            break
    for pid in _service_of(training.pid):
        os.kill(pid, signal.SIGKILL)
    _, errors = training.communicate(timeout=200)
    assert training.returncode == 0, errors
    warnings = [line for line in errors.splitlines() if "W&B" in line]
    assert len(warnings) == 1, errors
    assert "Traceback" not in errors
    [run] = open_store().client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert len(open_store().client.get_metric_history(run.info.run_id, "val/loss")) == 8
    assert f"histo mirror {run.info.run_id}" in warnings[0]


def _service_of(pid: int) -> list[int]:
    """Return the W&B processes that descend from `pid`."""
    found = []
    deadline = time.monotonic() + 10
    while not found and time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_text()
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if "wandb-core" in command and parent == pid:
                found.append(int(folder.name))
    return found


@pytest.mark.usefixtures("small_network")
def test_without_the_package_or_its_server_there_is_one_word_and_the_run(
    work: Path, tiny_npz: Path, histo: Histo, histo_here: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = histo_here("train", "--data", str(tiny_npz), *SHORT, "--wandb", "true")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("W&B is not installed") == 1
    [run] = open_store().client.search_runs(["0"])
    assert run.info.status == "FINISHED"

    done = histo_here("mirror", run.info.run_id)
    assert done.returncode == 1
    assert "pip install" in done.stderr.splitlines()[-1]

    # A key, and a server that does not answer.
    done = histo("mirror", run.info.run_id, WANDB_API_KEY="a" * 40, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "W&B can't be reached" in done.stdout
    assert list(read_all(work)) == [run.info.run_id]


def test_bad_requests_are_one_line(work: Path, histo_here: Histo) -> None:
    for arguments, words in ((["mirror"], "give the id"), (["mirror", "nobody"], "no run with this id")):
        done = histo_here(*arguments)
        assert done.returncode == 2
        assert words in done.stderr.splitlines()[-1]
    store = open_store()
    run = store.client.create_run(store.experiment_id)
    done = histo_here("mirror", run.info.run_id)
    assert done.returncode == 2
    assert "still going on" in done.stderr


@pytest.mark.usefixtures("small_network")
def test_without_the_option_the_package_is_never_imported(
    work: Path, tiny_npz: Path, histo_here: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # whoever imports it now meets an ImportError, and says so
    done = histo_here("train", "--data", str(tiny_npz), *SHORT)
    assert done.returncode == 0, done.stderr
    assert "W&B" not in done.stderr
