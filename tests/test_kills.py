"""Commands that are killed at random moments, on SQLite and on a server on PostgreSQL: afterwards the store says what is true.

``HISTO_KILLS`` is how often each is killed (2), ``HISTO_KILLS_SEED`` draws other moments.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import optuna
import pytest
from mlflow.entities import LoggedModelStatus, Run
from optuna.trial import TrialState

from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tracking.decisions import FORCED, Decision, carry_out, complete, read_history, register_model
from histo_mlflow.tracking.production import read_pointers
from histo_mlflow.tracking.registry import MODEL_URI_TAG, VersionFacts
from histo_mlflow.tracking.store import Store, open_store, read_store
from tests.conftest import PROJECT, save_npz
from tests.forking import Forks
from tests.learnings import assert_same_metrics, assert_same_weights
from tests.servers import postgresql, tracking_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

N_KILLS = int(os.environ.get("HISTO_KILLS", "2"))
SEED = int(os.environ.get("HISTO_KILLS_SEED", "0"))
OPTIONS = ["--data", "tiles.npz", "--weights", "none", "--batch-size", "9", "--aug-cutoff", "1"]
HELD_OUT = ["--val-fraction", "0.34"]
TRAIN = ["train", *OPTIONS, *HELD_OUT, "--epochs", "3", "--ema-decay", "0.5"]
CV = ["cv", *OPTIONS, "--epochs", "1", "--folds", "2"]
_IN_FLIGHT_SECONDS = 0.3  # in which a server may still carry out what a killed command has asked it for


class Place:
    """A working folder with a store, where commands are run and killed."""

    def __init__(self, folder: Path, uri: str, storage: str, forks: Forks) -> None:
        self.folder, self.uri, self.storage = folder, uri, storage
        self._forks = forks
        self.chance = random.Random(SEED)
        self.log = folder / "log"

    def end(self, *command: str) -> int:
        """Run a command to its end and return its exit code."""
        self._start(command)
        return self._forks.wait()

    def finish(self, *command: str) -> float:
        """Run a command to its good end and return how many seconds it took."""
        begun = time.monotonic()
        assert self.end(*command) == 0, self.said()
        return time.monotonic() - begun

    def kill(self, *command: str, within: float) -> int | None:
        """Kill a command at a random moment and return None, or its exit code if it has ended before."""
        pid = self._start(command)
        time.sleep(self.chance.uniform(0, within))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        code = self._forks.wait()
        time.sleep(_IN_FLIGHT_SECONDS)
        return None if code == -signal.SIGKILL else code

    def said(self) -> str:
        return self.log.read_text()[-3000:]

    def _start(self, command: tuple[str, ...]) -> int:
        environment = {name: os.environ[name] for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")}
        with self.log.open("a") as log:
            log.write(f"\n$ {' '.join(command)}\n")
        return self._forks.start(*command, cwd=self.folder, log=self.log, environment=environment)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("kills")
    save_npz(folder / "tiles.npz", draw_demo(n_tiles=27, tile_size_px=32))
    save_npz(folder / "test.npz", draw_demo(n_tiles=27, tile_size_px=32, seed=1))
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in [name for name in os.environ if name.startswith("MLFLOW_") and name != "MLFLOW_DISABLE_TELEMETRY"]:
            patch.delenv(name)
        patch.setenv("PYTHONPATH", str(PROJECT))
        patch.setenv("HISTO_CACHE_DIR", str(folder / "cache"))
        patch.setenv("HISTO_JOURNAL_DIR", str(folder / "journal"))
        uri, storage = f"sqlite:///{folder / 'mlflow.db'}", f"sqlite:///{folder / 'optuna.db'}"
        if request.param == "postgresql":
            psycopg = pytest.importorskip("psycopg")
            database = stack.enter_context(postgresql())
            with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute("CREATE DATABASE optuna")
            storage = f"{database.rpartition('/')[0]}/optuna"
            uri = stack.enter_context(tracking_server(folder, database=database))
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        forks = Forks(PROJECT)
        stack.callback(forks.close)
        yield Place(folder, uri, storage, forks)
        mlflow.set_tracking_uri(None)


@pytest.fixture
def own(place: Place, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The place, with an experiment for this test alone."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.originalname)
    return place


def _runs(store: Store, entry_point: str = "") -> list[Run]:
    """Runs that users see as one, the oldest first; those of an entry point, if given."""
    found = store.client.search_runs([store.experiment_id], max_results=1000, order_by=["attributes.start_time ASC"])
    whole = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    return [run for run in whole if not entry_point or run.data.tags.get("histo.entry_point") == entry_point]


def _nested(store: Store, run_id: str) -> dict[str, str]:
    found = store.client.search_runs([store.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    parts = {f"fold {run.data.tags['histo.fold']}": run.info.run_id for run in found}
    assert len(parts) == len(found), "a part was begun twice"
    return parts


def _assert_true_states() -> Store:
    """Open the store as the next command does, and find nothing that still runs."""
    store = open_store()
    runs = store.client.search_runs([store.experiment_id], max_results=1000)
    assert not [run.info.run_id for run in runs if run.info.status not in {"FINISHED", "FAILED"}]
    models = store.client.search_logged_models([store.experiment_id])
    assert not [model.model_id for model in models if model.status == LoggedModelStatus.PENDING]
    return store


def _assert_decided(store: Store, name: str) -> None:
    """After the next command, decisions are carried out, and stage and aliases are what they say."""
    complete(read_store(), name)
    assert complete(read_store(), name) is None
    pointers = read_pointers(store.client, name)
    assert pointers.agree, pointers.describe_disagreement()
    decisions = read_history(store, name)
    assert all(decision.is_done for decision in decisions)
    moves = [decision.version for decision in decisions if decision.moves_production]
    assert pointers.version == (moves[-1] if moves else None)


def _kill_and_resume(place: Place, command: list[str], seconds: float) -> tuple[Store, list[Run]]:
    """Kill a training and what goes on with it, time and again, let it end, and return the runs that have finished."""
    entry_point, n_killed, run_id = command[0], 0, None
    store = _assert_true_states()
    before = {run.info.run_id for run in _runs(store)}
    while n_killed < N_KILLS or run_id is not None:
        asked = [entry_point, "--resume", run_id] if run_id else command
        code = place.kill(*asked, within=seconds) if n_killed < N_KILLS else place.end(*asked)
        n_killed += code is None
        store = _assert_true_states()
        left = [run.info.run_id for run in _runs(store) if run.info.run_id not in before and run.info.status == "FAILED"]
        if code == 2:
            assert "has not noted its options" in place.said()
            before.add(str(run_id))
            left.remove(run_id)
        else:
            assert code in {None, 0}, place.said()
        assert len(left) <= 1
        run_id = left[0] if left else None
    return store, [run for run in _runs(store) if run.info.run_id not in before]


def _assert_one_version_each(store: Store, name: str, run_ids: list[str]) -> None:
    versions = store.client.search_model_versions(f"name = '{name}'")
    assert sorted(version.run_id for version in versions) == sorted(run_ids)
    for version in versions:
        model = store.client.get_logged_model(version.source.removeprefix("models:/"))
        assert model.status == LoggedModelStatus.READY
        assert model.model_uri == store.client.get_run(version.run_id).data.tags[MODEL_URI_TAG]
    _assert_decided(store, name)


def test_train(own: Place) -> None:
    seconds = own.finish(*TRAIN, "--register", "false")
    store = _assert_true_states()
    (whole,) = _runs(store, "train")
    store, finished = _kill_and_resume(own, [*TRAIN, "--model-name", "trained"], seconds)
    for run in finished:
        assert run.info.status == "FINISHED"
        assert_same_weights(store, run.info.run_id, whole.info.run_id)
        assert_same_metrics(store, run.info.run_id, whole.info.run_id)
    _assert_one_version_each(store, "trained", [run.info.run_id for run in finished])


def test_cv(own: Place) -> None:
    seconds = own.finish(*CV, "--register", "false")
    store = _assert_true_states()
    (whole,) = _runs(store, "cv")
    parts = _nested(store, whole.info.run_id)
    store, finished = _kill_and_resume(own, [*CV, "--model-name", "crossed"], seconds)
    best = []
    for run in finished:
        assert run.info.status == "FINISHED"
        assert_same_metrics(store, run.info.run_id, whole.info.run_id)
        again = _nested(store, run.info.run_id)
        assert again.keys() == parts.keys()
        for name, part in again.items():
            assert store.client.get_run(part).info.status == "FINISHED"
            assert_same_weights(store, part, parts[name])
            assert_same_metrics(store, part, parts[name])
        best.append(again[f"fold {run.data.tags['histo.best_fold']}"])
    _assert_one_version_each(store, "crossed", best)


def test_tune(own: Place) -> None:
    def command(n_trials: int) -> list[str]:
        options = ["--epochs", "1", "--repeats", "0", "--heartbeat", "1", "--storage", own.storage, "--register", "false"]
        return ["tune", *OPTIONS[:-2], *HELD_OUT, *options, "--trials", str(n_trials)]

    n_trials, n_killed = 2, 0
    seconds = own.finish(*command(n_trials))
    while n_killed < N_KILLS:
        n_trials += 1
        code = own.kill(*command(n_trials), within=seconds)
        assert code in {None, 0}, own.said()
        n_killed += code is None
        _assert_true_states()
    own.finish(*command(n_trials))
    store = _assert_true_states()
    trials = optuna.load_study(study_name="histo-b3", storage=own.storage).get_trials()
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    done = [trial.user_attrs["mlflow_run_id"] for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(set(done)) == len(done) == n_trials
    for run_id in done:
        assert store.client.get_run(run_id).info.status == "FINISHED"
        assert [metric.step for metric in store.client.get_metric_history(run_id, "val/loss")] == [1]
    (study,) = [run for run in _runs(store) if run.info.status == "FINISHED"]
    for name in study.data.metrics:
        history = [(metric.step, metric.value) for metric in store.client.get_metric_history(study.info.run_id, name)]
        assert len(set(history)) == len(history), name


def _two_versions(place: Place, name: str) -> tuple[Store, list[str]]:
    """Register one trained model twice; return the versions, of which the first is in Production."""
    place.finish(*TRAIN, "--epochs", "1", "--register", "false")
    store = _assert_true_states()
    (trained,) = _runs(store, "train")
    versions = []
    for _ in range(2):
        run = store.client.create_run(store.experiment_id).info.run_id
        store.client.set_terminated(run)
        model = trained.data.tags[MODEL_URI_TAG]
        versions.append(register_model(store, model, name, VersionFacts(run)).version)
    assert read_pointers(store.client, name).version == versions[0]
    return store, versions


def test_promote(own: Place) -> None:
    store, versions = _two_versions(own, "promoted")
    by_force, by_gate = ["--force", "--reason", "a kill"], ["--test-data", "test.npz"]
    seconds = {
        "force": own.finish("promote", "--model-name", "promoted", "--version", versions[1], *by_force),
        "gate": 8.0,
    }
    n_killed = 0
    while n_killed < N_KILLS:
        present = read_pointers(store.client, "promoted").version
        other = next(version for version in versions if version != present)
        way = ("force", "gate")[n_killed % 2]
        how = by_force if way == "force" else by_gate
        code = own.kill("promote", "--model-name", "promoted", "--version", other, *how, within=seconds[way])
        assert code is None or code == 0 or "REFUSED" in own.said(), own.said()
        n_killed += code is None
        store = _assert_true_states()
        _assert_decided(store, "promoted")


def test_rollback(own: Place) -> None:
    store, versions = _two_versions(own, "rolled")
    carry_out(store, "rolled", Decision(FORCED, versions[1], versions[0], "something to go back from"))
    seconds = own.finish("rollback", "--model-name", "rolled")
    n_killed = 0
    while n_killed < N_KILLS:
        code = own.kill("rollback", "--model-name", "rolled", within=seconds)
        assert code in {None, 0}, own.said()
        n_killed += code is None
        _assert_decided(_assert_true_states(), "rolled")
