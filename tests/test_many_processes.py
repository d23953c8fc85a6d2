"""Training in several processes of this machine, with gloo; several GPUs need a machine that has them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run

from histo_mlflow.errors import Interrupted, RankLostError
from histo_mlflow.interruption import interruptible
from histo_mlflow.learning.distributed import Ranks, noticing_losses
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import PROJECT, Histo

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_deal_every_tile_once(size: int) -> None:
    for n in (0, 1, 5, 32):
        parts = [list(range(n))[Ranks(rank, size).share(n)] for rank in range(size)]
        assert [k for part in parts for k in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def _learn(folder: Path, launcher: list[str]) -> dict[str, Any]:
    output = folder / f"{len(launcher)}.json"
    done = subprocess.run(
        [*launcher, PROJECT / "tests" / "ddp_script.py", output],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(output.read_text())
    return result


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """To rounding: in fp32, with the statistics of batch norm frozen, for it looks at a process's own tiles."""
    one, two = _learn(tmp_path, [sys.executable]), _learn(tmp_path, TORCHRUN)
    assert (one["size"], two["size"]) == (1, 2)
    for alone, shared in zip(one["epochs"], two["epochs"], strict=True):
        for name in ("train_loss", "val_loss"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-5), name
        assert shared["train_accuracy"] == pytest.approx(alone["train_accuracy"], abs=1e-12)
        assert shared["val_labels"] == alone["val_labels"], "no tile twice and none left out"
        assert shared["n_val"] == 13
    assert one["epochs"][0]["train_loss"] != one["epochs"][2]["train_loss"]


def _runs(store: Store) -> list[Run]:
    return list(store.client.search_runs([store.experiment_id], "tags.`histo.entry_point` = 'train'"))


@pytest.mark.slow
def test_processes_keep_one_run_between_them(histo: Histo, tiny_npz: Path, store: Store) -> None:
    done = histo("train", "--data", tiny_npz, "--weights", "none", "--epochs", "2", "--processes", "2", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1
    (run,) = _runs(store)
    assert run.info.status == "FINISHED"
    assert run.data.tags["histo.compute"].endswith("2 processes")
    local = Path(store.client.download_artifacts(run.info.run_id, "evaluation/val")) / "predictions.npz"
    with np.load(local) as saved, np.load(store.client.download_artifacts(run.info.run_id, "split.npz")) as split:
        assert saved["indices"].tolist() == split["val"].tolist()
        accuracy = float((saved["labels"] == saved["predicted"]).mean())
    last = store.client.get_metric_history(run.info.run_id, "val/accuracy")
    assert [metric.step for metric in last] == [1, 2]
    best = last[int(run.data.metrics["best/epoch"]) - 1].value
    assert best == pytest.approx(accuracy)


@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_lost_process_ends_the_job_and_fails_the_run(work: Path, tiny_npz: Path, store: Store, lost: int) -> None:
    with subprocess.Popen(
        [*TORCHRUN, "-m", "histo_mlflow", "train", "--data", tiny_npz, "--weights", "none", "--epochs", "900"],
        cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as job:  # fmt: skip
        end = time.monotonic() + 120
        while not any(run.data.metrics for run in _runs(store)):
            assert time.monotonic() < end, "no epoch in two minutes"
            time.sleep(0.3)
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


def _with_neighbour(process: subprocess.Popen[bytes], rank: int) -> Ranks:
    members = [(socket.gethostname(), os.getpid()), (socket.gethostname(), process.pid)]
    return Ranks(rank, 2, tuple(members if rank == 0 else reversed(members)))


@pytest.mark.parametrize("sees", ["a broken connection", "a signal"])
def test_the_signal_that_follows_a_loss_is_not_told_in_its_place(
    store: Store, neighbour: subprocess.Popen[bytes], sees: str
) -> None:
    ranks = _with_neighbour(neighbour, rank=0)
    with (
        pytest.raises(RankLostError, match="process 1 of 2"),
        interruptible(),
        open_run(store, "cv") as parent,
        noticing_losses(ranks),
        open_run(store, "fold 1", parent=parent) as child,
        noticing_losses(ranks),
    ):
        if sees == "a broken connection":  # torchrun's signal comes while the process is not yet seen to be dead
            Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            Timer(0.6, neighbour.kill).start()
            raise RuntimeError("Connection closed by peer")
        neighbour.kill()
        neighbour.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal came too late")
    for run in (parent, child):
        kept = store.client.get_run(run.id)
        assert kept.info.status == "FAILED"
        assert "process 1 of 2 ended without notice" in kept.data.tags["error"]


def test_a_signal_to_all_finds_the_others_alive_until_the_first_has_ended(neighbour: subprocess.Popen[bytes]) -> None:
    with (
        pytest.raises(RankLostError, match="process 0 of 2"),
        interruptible(),
        noticing_losses(_with_neighbour(neighbour, rank=1)),
    ):
        # Longer than it takes the signal to come again.
        Timer(2.5, neighbour.kill).start()
        started = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal came too late")
    assert time.monotonic() - started > 2


def test_a_signal_while_all_live_is_an_interruption(neighbour: subprocess.Popen[bytes]) -> None:
    with pytest.raises(Interrupted), interruptible(), noticing_losses(_with_neighbour(neighbour, rank=0)):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal came too late")


def _process_of_rank(parent: int, rank: int) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_child = int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if is_child and f"RANK={rank}" in (entry / "environ").read_text().split("\0"):
                return int(entry.name)
        except OSError:  # it has just ended
            continue
    raise AssertionError(f"torchrun has no process of rank {rank}")
