"""What all tests share: a folder of their own, a ready MLflow store, and small tiles that can be learnt."""

import contextlib
import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

# Before torch is imported: two test processes on two cores, one thread each.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
import numpy as np
import pytest
import torch
from hypothesis import settings
from mlflow import MlflowClient

from histo_mlflow.base.liveness import Process
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.decisions import FORCED, Decision, carry_out
from histo_mlflow.tracking.kept import PROCESS_TAG
from histo_mlflow.tracking.store import Store, open_store
from tests.forking import LONGEST_SECONDS, Forks
from tests.small_network import using_small_network

PROJECT = Path(__file__).resolve().parent.parent
SIZE_PX = 32
_SLOW_SECONDS = 1800
# What commands in processes of their own import from: this project, as if it were not installed.
PYTHONPATH = os.pathsep.join([str(PROJECT), str(PROJECT / "tests" / "uninstalled")])

torch.set_num_threads(1)
settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")

Histo = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the slow tests more time before they count as hanging: machines differ by a factor of three, and may stand still."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_SECONDS))


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite store; creating one takes seconds, copying it nothing."""
    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def work(tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working folder with an own empty store, as a user would have; and no setting of the outer world."""
    copy_store(store_template, tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_") and name != "MLFLOW_DISABLE_TELEMETRY"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HISTO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HISTO_JOURNAL_DIR", str(tmp_path / "journal"))
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    # As before a command has begun to show what is logged.
    monkeypatch.setattr(logging.getLogger("histo_mlflow"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("histo_mlflow"), "propagate", True)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    return tmp_path


@pytest.fixture
def small_network() -> Iterator[None]:
    """For tests of what surrounds the network: a small one learns, is written and is read in a tenth of the time."""
    with using_small_network():
        yield


@pytest.fixture
def store(work: Path) -> Store:
    return open_store()


@pytest.fixture(scope="session")
def tiny_tiles() -> TileSet:
    """54 demo tiles of 32 px, six of each class."""
    return draw_demo(n_tiles=54, tile_size_px=SIZE_PX)


@pytest.fixture
def tiny_npz(work: Path, tiny_tiles: TileSet) -> Path:
    return save_npz(work / "tiny.npz", tiny_tiles)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Forks a process that has imported everything, which commands of many tests then need not do."""
    started = Forks(PROJECT, PYTHONPATH=PYTHONPATH)
    yield started
    started.close()


@pytest.fixture
def histo(work: Path, forks: Forks, request: pytest.FixtureRequest) -> Histo:
    """Runs the command line in a process of its own, in the working folder; one that starts anew if a variable is given."""
    longest = 0.95 * _SLOW_SECONDS if request.node.get_closest_marker("slow") else LONGEST_SECONDS

    def run(*arguments: str | Path, timeout: float = longest, **environment: str) -> subprocess.CompletedProcess[str]:
        if not environment:
            return forks.run(*map(str, arguments), cwd=work, timeout=timeout)
        return subprocess.run(
            [sys.executable, "-m", "histo_mlflow", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=work,
            env={**os.environ, **environment},
            check=False,
        )

    return run


def copy_store(file: Path, folder: Path) -> None:
    """Copy a store of SQLite into `folder`; what it holds already stays where it lies, and is only to be read."""
    # Not as a file: what was written last may still lie in the log beside it.
    with (
        contextlib.closing(sqlite3.connect(file)) as source,
        contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection,
        connection,
    ):
        source.backup(connection)
        connection.execute("PRAGMA journal_mode = DELETE")  # as MLflow makes one
        connection.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "mlruns" / "0"),))


def put_into_production(version: str = "1") -> None:
    """Do what a person may: a model that has learnt for an epoch or two is no better than chance, and stays a candidate."""
    carry_out(open_store(), "histo-b3", Decision(FORCED, version, None, "for what comes after"))


def tags_of_process(pid: int | None = None, **changes: str) -> dict[str, str]:
    """Return the tag of a run that this process keeps, or that of another number, with what is said otherwise."""
    process = {**asdict(Process.of(os.getpid())), **({} if pid is None else {"pid": pid}), **changes}
    return {PROCESS_TAG: json.dumps(process)}


def save_npz(path: Path, tiles: TileSet, *, compressed: bool = False) -> Path:
    save = np.savez_compressed if compressed else np.savez
    save(path, data=tiles.images, labels=tiles.labels)
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("HISTO_REAL_DATA")
    if not folder:
        pytest.skip("HISTO_REAL_DATA does not name the folder with real tissue tiles")
    return (PROJECT / folder).resolve()


@pytest.fixture
def histo_here(work: Path) -> Histo:
    """Runs the command line in this process and in the working folder: saves the seconds that a new one spends on imports."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        from histo_mlflow.cli import main

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stopped:
            main(arguments)
        return subprocess.CompletedProcess(arguments, stopped.value.code or 0, out.getvalue(), err.getvalue())

    return run
