"""What groups of people keep their runs on: a server with workspaces, one with users and rights, one on PostgreSQL."""

import contextlib
import json
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest

from histo_mlflow.errors import RequestError
from histo_mlflow.tracking.decisions import (
    FIRST,
    FORCED,
    PROMOTED,
    REFUSED,
    ROLLED_BACK,
    Decision,
    carry_out,
    complete,
    read_history,
    register_model,
    version_before,
)  # fmt: skip
from histo_mlflow.tracking.logged_models import log_model
from histo_mlflow.tracking.production import read_pointers
from histo_mlflow.tracking.registry import VersionFacts, ask_to_register, located_model
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store, open_store
from tests.conftest import Histo
from tests.servers import postgresql, tracking_server
from tests.tracking.test_registry import FACTS, Small

pytestmark = pytest.mark.slow  # a server takes ten seconds and more to start

TRAIN = ("train", "--weights", "none", "--epochs", "1", "--batch-size", "9")
PASSWORD = "s3cret-of-all-of-them"


def _post(address: str, path: str, user: str | None = None, **values: object) -> None:
    request = urllib.request.Request(f"{address}{path}", json.dumps(values).encode(), {"Content-Type": "application/json"})
    if user:
        request.add_header("Authorization", f"Basic {b64encode(f'{user}:{PASSWORD}'.encode()).decode()}")
    urllib.request.urlopen(request, timeout=30).close()


def _use(patch: pytest.MonkeyPatch, address: str) -> None:
    patch.setenv("MLFLOW_TRACKING_URI", address)
    mlflow.set_tracking_uri(address)


def _logged(store: Store, bias: float) -> tuple[str, str]:
    """Log a small model in a run of its own and return the run and the address."""
    with open_run(store, "train") as run:
        run.log_metrics({"val/loss": 0.5}, step=1)
        return run.id, log_model(run, Small(bias), FACTS, "a card", step=1)


def test_a_workspace_is_worked_in_like_any_other_store(
    work: Path, tiny_npz: Path, histo: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking_server(work, options=["--enable-workspaces"]) as address:
        _use(monkeypatch, address)
        _post(address, "/api/3.0/mlflow/workspaces", name="lab-a")
        monkeypatch.setenv("MLFLOW_WORKSPACE", "lab-a")
        done = histo(*TRAIN, "--data", tiny_npz)
        assert done.returncode == 0, done.stderr
        store = open_store()
        assert store.client.get_experiment_by_name("Default").experiment_id != "0"
        (run,) = store.client.search_runs([store.experiment_id])
        (model,) = store.client.search_logged_models([store.experiment_id])
        assert (run.info.status, model.experiment_id, model.source_run_id) == ("FINISHED", store.experiment_id, run.info.run_id)
        for command in (["promote", "--version", "1", "--force", "--reason", "x"], ["history"]):
            done = histo(*command)
            assert done.returncode == 0, done.stderr
        done = histo("predict", "--model", "models:/histo-b3/Production", "--data", tiny_npz, "--output", "out.csv")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def guarded(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with users: alice, who has registered a model, and bob, who may read everything and change what is his."""
    pytest.importorskip("flask_wtf", reason="MLflow's server with users needs it (pip install 'mlflow[auth]')")
    users = work / "users.ini"
    users.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{work / 'users.db'}\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\ngrant_default_workspace_access = true\n"
        "auth_cache_ttl_seconds = 600\n"  # a password takes a second to check, at each request
    )
    for name, value in (
        ("MLFLOW_AUTH_CONFIG_PATH", str(users)),
        ("MLFLOW_AUTH_ADMIN_PASSWORD", PASSWORD),
        ("MLFLOW_FLASK_SERVER_SECRET_KEY", "of the test"),
        ("MLFLOW_TRACKING_PASSWORD", PASSWORD),
    ):
        monkeypatch.setenv(name, value)
    with tracking_server(work, options=["--app-name", "basic-auth"]) as address:
        for name in ("alice", "bob"):
            _post(address, "/api/2.0/mlflow/users/create", "admin", username=name, password=PASSWORD)
        _use(monkeypatch, address)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of-alice")
        store = open_store()
        run_id, uri = _logged(store, 0.0)
        register_model(store, uri, "histo-b3", VersionFacts(run_id))
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
        yield address


def test_a_missing_right_is_named_before_the_training(
    guarded: str, tiny_npz: Path, histo: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = histo(*TRAIN, "--data", tiny_npz, "--register", "false")
    assert done.returncode == 2, done.stderr
    assert "experiment 'of-alice': your login (bob) has no right to create runs in it" in done.stderr

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of-bob")
    done = histo(*TRAIN, "--data", tiny_npz)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert "registered model 'histo-b3': your login (bob) has no right to create versions and set its stage, aliases" in line
    assert "epoch 1/1" not in done.stdout
    store = open_store()
    assert not store.client.search_runs([store.experiment_id])
    for command in (["promote", "--version", "1", "--force", "--reason", "mine"], ["rollback"]):
        refused = histo(*command)
        assert refused.returncode == 2, refused.stderr

    done = histo(*TRAIN, "--data", tiny_npz, "--model-name", "histo-bob")
    assert done.returncode == 0, done.stderr
    assert [version.version for version in store.client.search_model_versions("name = 'histo-bob'")] == ["1"]


def test_who_may_edit_may_promote(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of-bob")
    store = open_store()
    with pytest.raises(RequestError, match=r"registered model 'histo-b3'.*bob"):
        ask_to_register(store, "histo-b3")
    right = {"resource_type": "registered_model", "resource_id": "histo-b3", "permission": "EDIT"}
    _post(guarded, "/api/3.0/mlflow/users/permissions/grant", "alice", username="bob", **right)
    ask_to_register(store, "histo-b3")
    run_id, uri = _logged(store, 1.0)
    done = register_model(store, uri, "histo-b3", VersionFacts(run_id))
    carry_out(store, "histo-b3", Decision(PROMOTED, done.version, done.incumbent, "better"))
    assert complete(store, "histo-b3") is None
    assert read_pointers(store.client, "histo-b3").version == done.version == "2"


@pytest.fixture
def on_postgresql(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    pytest.importorskip("psycopg")
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgresql())
        _use(monkeypatch, stack.enter_context(tracking_server(work, database=database)))
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tissue")
        yield open_store()


def test_the_registry_on_postgresql(on_postgresql: Store, histo: Histo) -> None:
    store, name = on_postgresql, "histo-b3"
    for bias in (0.0, 1.0, 2.0):
        run_id, uri = _logged(store, bias)
        register_model(store, uri, name, VersionFacts(run_id, "words " * 2000, {"source_run": run_id}))

    def in_production() -> str | None:
        pointers = read_pointers(store.client, name)
        assert pointers.agree, pointers.describe_disagreement()
        return pointers.version

    def answer(address: str) -> np.ndarray:
        return np.asarray(mlflow.pyfunc.load_model(address).predict(np.zeros((2, 8, 8, 3), np.uint8)).iloc[:, 1:], float)

    assert in_production() == "1"
    carry_out(store, name, Decision(REFUSED, "2", "1", "worse", evidence={"difference": -0.1}))
    assert in_production() == "1"
    carry_out(store, name, Decision(PROMOTED, "2", "1", "better"))
    assert in_production() == "2"
    assert version_before(store, name) == ("2", "1")
    carry_out(store, name, Decision(FORCED, "3", "2", "by hand"))
    assert in_production() == "3"
    np.testing.assert_array_equal(answer(f"models:/{name}/Production"), answer(f"models:/{name}/3"))
    np.testing.assert_array_equal(answer(f"models:/{name}@champion"), answer(f"models:/{name}/3"))
    with located_model(store, f"models:/{name}/Production") as located:
        assert located.run_id == store.client.get_model_version(name, "3").run_id

    done = histo("rollback")
    assert done.returncode == 0, done.stderr
    assert in_production() == "2"
    done = histo("promote", "--version", "3", "--force", "--reason", "again")
    assert done.returncode == 0, done.stderr
    assert in_production() == "3"
    stages = {str(each.version): each.current_stage for each in store.client.search_model_versions(f"name = '{name}'")}
    assert stages == {"1": "Archived", "2": "Archived", "3": "Production"}
    told = [each.what for each in read_history(store, name)]
    assert told == [FIRST, REFUSED, PROMOTED, FORCED, ROLLED_BACK, FORCED]
    listed = histo("history")
    assert "in Production: version 3 of histo-b3" in listed.stdout, listed.stderr
