"""Training in several processes of this machine, with gloo; several GPUs need a machine that has them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import mlflow
import numpy as np
import pytest
import torch.distributed as dist
from mlflow.entities import Run

from histo_mlflow.base.interruption import interruptible
from histo_mlflow.base.liveness import Process
from histo_mlflow.errors import Interrupted, RankFailedError, RankLostError
from histo_mlflow.learning.ranks import Ranks, noticing_losses
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import PROJECT, PYTHONPATH, Histo

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_deal_every_tile_once(size: int) -> None:
    for n in (0, 1, 5, 32):
        parts = [list(range(n))[Ranks(rank, size).share(n)] for rank in range(size)]
        assert [k for part in parts for k in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def _learn(folder: Path, launcher: list[str], trainable: str) -> dict[str, Any]:
    output = folder / f"{len(launcher)}.json"
    done = subprocess.run(
        [*launcher, PROJECT / "tests" / "ddp_script.py", output, trainable],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(output.read_text())
    return result


@pytest.mark.parametrize("trainable", ["all", pytest.param("gradual", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("small_network")
def test_two_processes_learn_what_one_learns(tmp_path: Path, trainable: str) -> None:
    """To rounding: in fp32, with the statistics of batch norm frozen, because it sees a process's own tiles alone."""
    one, two = _learn(tmp_path, [sys.executable], trainable), _learn(tmp_path, TORCHRUN, trainable)
    assert (one["size"], two["size"]) == (1, 2)
    for alone, shared in zip(one["epochs"], two["epochs"], strict=True):
        for name in ("train_loss", "val_loss"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-5), name
        assert shared["train_accuracy"] == pytest.approx(alone["train_accuracy"], abs=1e-12)
        assert shared["val_labels"] == alone["val_labels"], "no tile twice and none left out"
        assert shared["n_val"] == 13
    assert one["epochs"][0]["train_loss"] != one["epochs"][2]["train_loss"]
    assert len(one["statistics"]) > 100
    assert two["statistics"] == pytest.approx(one["statistics"], rel=1e-5), "batch norm's, pooled over processes"


def _runs(store: Store) -> list[Run]:
    return list(store.client.search_runs([store.experiment_id], "tags.`histo.entry_point` = 'train'"))


@pytest.mark.slow
def test_processes_keep_one_run_between_them(histo: Histo, tiny_npz: Path, store: Store) -> None:
    done = histo("train", "--data", tiny_npz, "--weights", "none", "--epochs", "2", "--processes", "2", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1
    (run,) = _runs(store)
    assert run.info.status == "FINISHED"
    assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/about.json")["compute"].endswith("2 processes")
    local = Path(store.client.download_artifacts(run.info.run_id, "evaluation/val")) / "predictions.npz"
    with np.load(local) as saved, np.load(store.client.download_artifacts(run.info.run_id, "split.npz")) as split:
        assert saved["indices"].tolist() == split["val"].tolist()
        accuracy = float((saved["labels"] == saved["predicted"]).mean())
    last = store.client.get_metric_history(run.info.run_id, "val/accuracy")
    assert [metric.step for metric in last] == [1, 2]
    best = last[int(run.data.metrics["best/epoch"]) - 1].value
    assert best == pytest.approx(accuracy)


@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("small_network")
def test_a_lost_process_ends_the_job_and_fails_the_run(work: Path, tiny_npz: Path, store: Store, lost: int) -> None:
    with _job(work, tiny_npz) as job:
        _wait_for_an_epoch(store, set())
        os.kill(_process_of_rank(job.pid, lost), signal.SIGKILL)
        _, error = job.communicate(timeout=60)
    assert job.returncode != 0
    (run,) = _runs(store)
    assert run.info.status == "FAILED"
    if lost == 1:
        assert "process 1 of 2 ended without notice" in run.data.tags["error"]
        assert "Error: process 1 of 2 ended without notice" in error


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def _pair(process: subprocess.Popen[bytes], rank: int) -> tuple[Ranks, Ranks]:
    """This process as `rank` of two, and what the neighbour would have in its place."""
    members = [Process.of(os.getpid()), Process.of(process.pid)]
    store = dist.HashStore()
    here = Ranks(rank, 2, tuple(members if rank == 0 else reversed(members)), store=store)
    return here, Ranks(1 - rank, 2, here.members, store=store)


def _broken_connection() -> None:
    raise RuntimeError("Connection closed by peer")


def _signal() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("the signal came too late")


@pytest.mark.parametrize("see", [_broken_connection, _signal])
def test_the_signal_that_follows_a_loss_is_not_told_in_its_place(
    store: Store, neighbour: subprocess.Popen[bytes], see: Callable[[], None]
) -> None:
    here, _ = _pair(neighbour, rank=0)
    with (
        pytest.raises(RankLostError, match="process 1 of 2 ended without notice"),
        interruptible(),
        open_run(store, "cv") as parent,
        noticing_losses(here),
        open_run(store, "fold 1", parent=parent) as child,
        noticing_losses(here),
    ):
        if see is _broken_connection:  # torchrun's signal comes while the process is not yet seen to be dead
            Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            Timer(0.6, neighbour.kill).start()
        else:
            neighbour.kill()
            neighbour.wait()
        see()
    for run in (parent, child):
        kept = store.client.get_run(run.id)
        assert kept.info.status == "FAILED"
        assert "process 1 of 2 ended without notice" in kept.data.tags["error"]


@pytest.mark.parametrize("see", [_broken_connection, _signal])
@pytest.mark.parametrize("note", ["OutOfMemoryError: no memory left", "interrupted"])
def test_what_another_process_has_noted_is_the_cause(
    neighbour: subprocess.Popen[bytes], see: Callable[[], None], note: str
) -> None:
    here, there = _pair(neighbour, rank=0)
    expected = Interrupted if note == "interrupted" else RankFailedError
    there.note_end(note)
    neighbour.kill()
    started = time.monotonic()
    with pytest.raises(expected, match=None if note == "interrupted" else note), interruptible(), noticing_losses(here):
        see()
    assert time.monotonic() - started < 4, "a note is not waited for"


@pytest.mark.parametrize("is_done", [False, True])
def test_a_signal_for_which_no_other_process_is_the_cause_is_an_interruption(
    neighbour: subprocess.Popen[bytes], is_done: bool
) -> None:
    here, there = _pair(neighbour, rank=0)
    if is_done:  # as all but the first are while it still reports and registers
        there.note_end("done")
        neighbour.kill()
        neighbour.wait()
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible(), noticing_losses(here):
        _signal()


@pytest.mark.slow
def test_a_schedulers_signal_kills_the_job(work: Path, tiny_npz: Path, store: Store) -> None:
    """Whatever the two are doing then: one may be waiting for the other, deaf to signals."""
    for moment in (0.0, 0.13, 0.29, 0.41):
        before = {run.info.run_id for run in _runs(store)}
        with _job(work, tiny_npz) as job:
            _wait_for_an_epoch(store, before)
            time.sleep(moment)
            started = time.monotonic()
            job.send_signal(signal.SIGTERM)
            _, error = job.communicate(timeout=60)
        assert time.monotonic() - started < 25, "torchrun had to kill them"
        (run,) = [run for run in _runs(store) if run.info.run_id not in before]
        assert run.info.status == "KILLED", run.data.tags
        assert error.count("Error: interrupted by SIGTERM") == 1


def _job(work: Path, tiles: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, "-m", "histo_mlflow", "train", "--data", tiles, "--weights", "none", "--epochs", "900"],
        cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _wait_for_an_epoch(store: Store, before: set[str]) -> None:
    end = time.monotonic() + 120
    while not any(run.data.metrics for run in _runs(store) if run.info.run_id not in before):
        assert time.monotonic() < end, "no epoch in two minutes"
        time.sleep(0.3)


def _process_of_rank(parent: int, rank: int) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_child = int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if is_child and f"RANK={rank}" in (entry / "environ").read_text().split("\0"):
                return int(entry.name)
        except OSError:  # it has just ended
            continue
    raise AssertionError(f"torchrun has no process of rank {rank}")
