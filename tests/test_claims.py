"""A piece of work belongs to one process at a time, however the others ended."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from histo_mlflow.base.claims import PATIENCE_SECONDS, claimed
from histo_mlflow.base.liveness import Process
from tests.conftest import PROJECT


def _left_by(process: Process, file: Path, *, silent_seconds: float = 0) -> None:
    file.write_text(json.dumps({"token": "t", **asdict(process)}))
    then = time.time() - silent_seconds
    os.utime(file, (then, then))


def test_a_second_process_is_told_who_works_on_it(tmp_path: Path) -> None:
    file = tmp_path / "slide.claim"
    with claimed(file) as owner:
        assert owner is None
        code = (
            "from pathlib import Path; from histo_mlflow.base.claims import claimed\n"
            f"with claimed(Path({str(file)!r})) as owner: print(owner)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"process {os.getpid()} on ")
    with claimed(file) as owner:
        assert owner is None
    assert not list(tmp_path.iterdir())


def test_a_claim_of_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    file = tmp_path / "slide.claim"
    own = Process.of(os.getpid())
    _left_by(replace(own, started="1"), file)  # its number is another process's now
    with claimed(file) as owner:
        assert owner is None
    assert not list(tmp_path.iterdir())


def test_a_claim_of_another_machine_is_taken_over_when_it_is_silent(tmp_path: Path) -> None:
    file, other = (
        tmp_path / "slide.claim",
        replace(Process.of(os.getpid()), host="elsewhere", boot="another", namespace="another"),
    )
    _left_by(other, file, silent_seconds=PATIENCE_SECONDS / 2)
    with claimed(file) as owner:
        assert owner == f"process {os.getpid()} on elsewhere"
    _left_by(other, file, silent_seconds=2 * PATIENCE_SECONDS)
    with claimed(file) as owner:
        assert owner is None


def _claim_often(folder: Path, name: str, n_pieces: int) -> None:
    for k in range(n_pieces):
        with claimed(folder / f"{k}.claim") as owner:
            if owner is None and not (folder / f"{k}.done").exists():
                with (folder / f"{k}.begun").open("a") as file:
                    file.write(f"{name}\n")
                (folder / f"{k}.done").touch()


def test_four_processes_do_each_piece_once_though_all_claims_were_left(tmp_path: Path) -> None:
    n_pieces = 60
    for k in range(n_pieces):
        _left_by(dead := replace(Process.of(os.getpid()), started="1"), tmp_path / f"{k}.claim")
        if k % 2:  # and one that ended while it took the other's claim over
            _left_by(dead, tmp_path / f"{k}.claim.after-t")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_claim_often, args=(tmp_path, str(k), n_pieces)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    begun = [(tmp_path / f"{k}.begun").read_text().split() for k in range(n_pieces) if (tmp_path / f"{k}.begun").exists()]
    assert all(len(names) == 1 for names in begun)
    assert len(begun) == n_pieces
    assert not list(tmp_path.glob("*.claim*"))
