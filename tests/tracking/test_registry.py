import concurrent.futures
import contextlib
import os
import warnings
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from histo_mlflow.errors import Interrupted, OptionError, RequestError, SourceNotFoundError
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.tracking.decisions import (
    FIRST,
    FORCED,
    PROMOTED,
    REFUSED,
    ROLLED_BACK,
    Decision,
    Registration,
    carry_out,
    complete,
    read_history,
    register_model,
    version_before,
)
from histo_mlflow.tracking.found_runs import count_looks, note_looks
from histo_mlflow.tracking.kept import PROCESS_TAG
from histo_mlflow.tracking.logged_models import log_model
from histo_mlflow.tracking.model_flavor import load_saved
from histo_mlflow.tracking.options import RegistryOptions
from histo_mlflow.tracking.production import production_version
from histo_mlflow.tracking.registry import VersionFacts, ask_to_register, located_model
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store, open_store
from tests.conftest import tags_of_process

FACTS = ModelFacts(("a", "b", "c"), 32, "f" * 64, is_synthetic=True, selected="epoch 1")


class _Killed(BaseException):
    pass


class Small(torch.nn.Module):
    """A network of the right form that exports in a moment; the real one is exported by the story test."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        torch.nn.init.constant_(self.linear.bias, bias)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        torch._assert_tensor_metadata(tiles, dtype=torch.uint8)
        return self.linear((tiles * torch.ones(1)).mean(dim=(1, 2)))


def _register(store: Store, network: torch.nn.Module) -> tuple[str, str, str | None]:
    with open_run(store, "train") as run:
        run.log_metrics({"val/loss": 0.5}, step=1)
        uri = log_model(run, network, FACTS, "a card", step=1)
    done = register_model(store, uri, "histo-b3", VersionFacts(run.id, "words", {"source_run": run.id}))
    return run.id, done.version, done.incumbent


def test_first_version_is_promoted_and_the_second_is_a_candidate(store: Store) -> None:
    first, second = _register(store, Small(0.0)), _register(store, Small(1.0))
    assert first[1:] == ("1", None)
    assert second[1:] == ("2", "1")
    client = store.client
    stages = {str(v.version): v.current_stage for v in client.search_model_versions("name = 'histo-b3'")}
    assert stages == {"1": "Production", "2": "None"}
    aliases = {name: str(client.get_model_version_by_alias("histo-b3", name).version) for name in ("champion", "Production")}
    assert aliases == {"champion": "1", "Production": "1"}
    assert str(client.get_model_version_by_alias("histo-b3", "candidate").version) == "2"
    assert client.get_model_version("histo-b3", "1").description == "words"
    tiles = np.zeros((2, 8, 8, 3), np.uint8)
    answers = [
        mlflow.pyfunc.load_model(f"models:/histo-b3{end}").predict(tiles) for end in ("/Production", "@champion", "/1", "/2")
    ]
    for answer in answers[1:3]:
        np.testing.assert_array_equal(answer.to_numpy(), answers[0].to_numpy())
    assert production_version(client, "other") is None


def test_a_model_is_logged_into_the_experiment_of_its_run_and_once(work: Path, store: Store) -> None:
    """In a workspace of MLflow's there is no experiment 0, which its own functions would take."""
    other = Store(store.uri, store.client.create_experiment("other"))
    with open_run(other, "train") as run:
        first = log_model(run, Small(0.0), FACTS, "a card", step=1)
        assert log_model(run, Small(0.0), FACTS, "a card", step=1) == first, "a run that goes on after it has its model"
        assert log_model(run, Small(0.0), replace(FACTS, temperature=2.0), "a card", step=1) != first
    models = store.client.search_logged_models(["0", other.experiment_id])
    assert {(model.experiment_id, model.status) for model in models} == {(other.experiment_id, LoggedModelStatus.READY)}


@pytest.mark.parametrize("error", [_Killed, Interrupted])
def test_a_model_whose_logging_was_cut_short_has_failed(store: Store, error: type[BaseException]) -> None:
    def cut_short(*_: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch, pytest.raises(error), open_run(store, "train") as run:
        patch.setattr(MlflowClient, "log_model_artifacts", cut_short)
        if error is _Killed:
            patch.setattr(MlflowClient, "set_terminated", cut_short)
        log_model(run, Small(0.0), FACTS, "a card", step=1)
    if error is _Killed:
        store.client.set_tag(
            run.id, PROCESS_TAG, tags_of_process(started="1")[PROCESS_TAG]
        )  # of another process, which has gone
        open_store()
    (model,) = store.client.search_logged_models(["0"])
    assert model.status == LoggedModelStatus.FAILED
    assert store.client.get_run(run.id).info.status == ("FAILED" if error is _Killed else "KILLED")


def test_a_model_of_a_finished_fold_that_a_kill_cut_short_has_failed(store: Store) -> None:
    with open_run(store, "cv") as parent, open_run(store, "fold 1", parent=parent) as fold:
        pass
    pending = store.client.create_logged_model("0", "model", fold.id)
    store.client.update_run(parent.id, status="RUNNING")
    store.client.set_tag(
        parent.id, PROCESS_TAG, tags_of_process(started="1")[PROCESS_TAG]
    )  # of another process, which has gone
    open_store()
    assert store.client.get_logged_model(pending.model_id).status == LoggedModelStatus.FAILED
    assert store.client.get_run(fold.id).info.status == "FINISHED"


def test_a_model_of_an_earlier_attempt_does_not_stay_pending(store: Store) -> None:
    with open_run(store, "train") as run:
        pending = store.client.create_logged_model("0", "model", run.id)
        log_model(run, Small(0.0), FACTS, "a card", step=1)
    assert store.client.get_logged_model(pending.model_id).status == LoggedModelStatus.FAILED


def test_a_right_that_is_missing_is_asked_for_beforehand(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    ask_to_register(store, "histo-b3")
    assert not store.client.search_model_versions("name = 'histo-b3'")
    for name in ("get_registered_model", "create_registered_model", "set_registered_model_tag"):
        monkeypatch.setattr(MlflowClient, name, refuse)
        with pytest.raises(RequestError, match=r"registered model 'histo-b3': your login \(bob\) has no right to create"):
            ask_to_register(store, "histo-b3")


def test_metrics_of_the_chosen_epoch_stand_beside_the_model(store: Store) -> None:
    run_id, _, _ = _register(store, Small(0.0))
    (model,) = store.client.search_logged_models(["0"], filter_string=f"source_run_id = '{run_id}'")
    assert {metric.key: metric.value for metric in model.metrics} == {"val/loss": 0.5}


def test_a_model_is_found_by_every_address(store: Store) -> None:
    run_id, _, _ = _register(store, Small(0.0))
    found = set()
    for address in ("models:/histo-b3/Production", "models:/histo-b3@champion", "models:/histo-b3/1", f"runs:/{run_id}/model"):
        with located_model(store, address) as located:
            network, facts = load_saved(located.path)
        assert facts == FACTS
        found.add(network(torch.zeros((1, 8, 8, 3), dtype=torch.uint8)).sum().item())
    assert len(found) == 1


@pytest.mark.parametrize("address", ["models:/none/1", "models:/histo-b3/Production", "0" * 32, "runs:/x/model", "gone"])
def test_a_model_that_is_not_there(store: Store, address: str) -> None:
    with pytest.raises(SourceNotFoundError, match="model=") as caught:
        located_model(store, address).__enter__()
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model(store: Store, work: Path) -> None:
    with pytest.raises(RequestError, match="without a file MLmodel"):
        located_model(store, str(work)).__enter__()


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("models:/crc", "the version is missing; give models:/crc/Production"),
        ("runs:/" + "a" * 32, "give the run's id alone"),
        ("a1b2c3d4", "a run's id has 32 characters, this has 8"),
    ],
)
def test_half_an_address_gets_the_other_half(store: Store, address: str, advice: str) -> None:
    with pytest.raises(SourceNotFoundError, match=advice):
        located_model(store, address).__enter__()


def test_what_was_fetched_from_elsewhere_is_gone_afterwards(store: Store) -> None:
    _register(store, Small(0.0))
    with located_model(store, "models:/histo-b3/1") as located:
        assert located.path.exists()
    assert not located.path.exists()


def test_four_first_versions_at_once_leave_one_in_production(store: Store) -> None:
    uris = []
    for k in range(4):
        with open_run(store, "train") as run:
            uris.append((log_model(run, Small(k), FACTS, "a card", step=1), run.id))

    def register(item: tuple[str, str]) -> str:
        return register_model(open_store(), item[0], "histo-b3", VersionFacts(item[1])).version

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        versions = set(pool.map(register, uris))
    assert versions == {"1", "2", "3", "4"}
    assert production_version(store.client, "histo-b3") in versions


def test_looks_add_up_per_set(store: Store) -> None:
    assert count_looks(store, "a" * 64) == 0
    for fingerprint, looks, total in (("a" * 64, 21, 21), ("a" * 64, 1, 22), ("b" * 64, 1, 1)):
        with open_run(store, "evaluate") as run:
            note_looks(run, fingerprint, looks)
            assert count_looks(store, fingerprint) == total


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "o'brien"])
def test_model_names_that_no_address_can_hold(name: str) -> None:
    with pytest.raises(OptionError, match="model_name"):
        RegistryOptions(model_name=name)


_STEPS = (
    "set_registered_model_tag",
    "set_registered_model_alias",
    "transition_model_version_stage",
    "delete_registered_model_alias",
)


def _dying_at(store: Store, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end before its write number `step` to the registry."""
    left = [step]

    def patch(name: str) -> None:
        write = getattr(MlflowClient, name)

        def guarded(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise _Killed
            return write(*args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, guarded)

    for name in _STEPS:
        patch(name)


def _state(store: Store) -> dict[str, str]:
    stages = {
        str(v.version) for v in store.client.search_model_versions("name = 'histo-b3'") if v.current_stage == "Production"
    }
    aliases = store.client.get_registered_model("histo-b3").aliases
    return {"stages": " ".join(sorted(stages)), **{alias: str(aliases[alias]) for alias in ("champion", "Production")}}


@pytest.fixture
def two_versions(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Versions of no content: what is decided on them does not depend on it."""
    for _ in range(2):
        run = store.client.create_run("0").info.run_id
        register_model(store, f"runs:/{run}/model", "histo-b3", VersionFacts(run))
    return store


@pytest.mark.parametrize("step", range(7))
@pytest.mark.parametrize("what", [PROMOTED, ROLLED_BACK])
def test_a_decision_that_a_kill_cuts_short_is_completed_whichever_step_it_came_before(
    two_versions: Store, what: str, step: int
) -> None:
    store = two_versions
    if what == ROLLED_BACK:
        carry_out(store, "histo-b3", Decision(PROMOTED, "2", "1", "better"))
    version, before = ("1", "2") if what == ROLLED_BACK else ("2", "1")
    n_before = len(read_history(store, "histo-b3"))
    with pytest.MonkeyPatch.context() as patch:
        _dying_at(store, step, patch)
        with contextlib.suppress(_Killed):
            carry_out(store, "histo-b3", Decision(what, version, before, "why"))
    complete(store, "histo-b3")
    assert complete(store, "histo-b3") is None, "completed once"
    expected = before if step == 0 else version
    assert _state(store) == {"stages": expected, "champion": expected, "Production": expected}
    history = read_history(store, "histo-b3")
    assert len(history) == n_before + (step > 0)
    assert all(decision.is_done for decision in history)


@pytest.mark.parametrize("step", range(6))
def test_a_registration_that_a_kill_cuts_short_is_not_made_twice(store: Store, step: int) -> None:
    run = store.client.create_run("0").info.run_id

    def register(source: str) -> Registration:
        return register_model(store, f"runs:/{run}/{source}", "histo-b3", VersionFacts(run))

    with pytest.MonkeyPatch.context() as patch:
        _dying_at(store, step, patch)
        with contextlib.suppress(_Killed):
            register("model")
    done = register("model-again")
    assert (done.version, done.incumbent) == ("1", None)
    assert len(store.client.search_model_versions("name = 'histo-b3'")) == 1
    assert _state(store) == {"stages": "1", "champion": "1", "Production": "1"}
    assert [each.what for each in read_history(store, "histo-b3")] == [FIRST]


def test_order_is_that_of_the_decisions_and_not_of_clocks(two_versions: Store) -> None:
    carry_out(two_versions, "histo-b3", Decision(PROMOTED, "2", "1", "a day ahead", time="2999-01-01T00:00:00+00:00"))
    carry_out(two_versions, "histo-b3", Decision(FORCED, "1", "2", "back"))
    assert version_before(two_versions, "histo-b3") == ("1", "2")
    assert [each.reason for each in read_history(two_versions, "histo-b3")][-2:] == ["a day ahead", "back"]


def test_a_move_by_hand_is_told_and_left_as_it_is(two_versions: Store) -> None:
    store = two_versions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        store.client.transition_model_version_stage("histo-b3", "2", "Production", archive_existing_versions=True)
    by_hand = _state(store)
    told = "the stage Production is version 2, the alias champion version 1"
    with pytest.raises(RequestError, match=told):
        production_version(store.client, "histo-b3")
    with pytest.raises(RequestError, match=told):
        version_before(store, "histo-b3")
    with pytest.raises(RequestError, match=told):
        carry_out(store, "histo-b3", Decision(PROMOTED, "2", "1", "better"))
    run = store.client.create_run("0").info.run_id
    done = register_model(store, f"runs:/{run}/model", "histo-b3", VersionFacts(run))
    assert told in done.trouble
    assert _state(store) == by_hand == {"stages": "2", "champion": "1", "Production": "1"}
    carry_out(store, "histo-b3", Decision(FORCED, "2", "2", "the page was meant"))
    assert _state(store) == {"stages": "2", "champion": "2", "Production": "2"}


def test_decisions_outlive_the_version_that_they_are_on(two_versions: Store) -> None:
    carry_out(two_versions, "histo-b3", Decision(PROMOTED, "2", "1", "better"))
    two_versions.client.delete_model_version("histo-b3", "1")
    assert [each.what for each in read_history(two_versions, "histo-b3")] == [FIRST, PROMOTED]
    with pytest.raises(RequestError, match=r"version 1, which was in Production before version 2, was deleted"):
        version_before(two_versions, "histo-b3")


def test_an_objection_keeps_a_first_version_from_production(store: Store) -> None:
    run = store.client.create_run("0").info.run_id
    done = register_model(store, f"runs:/{run}/model", "histo-b3", VersionFacts(run), objection="it guesses")
    assert done.decision is not None
    assert (done.decision.what, done.decision.reason, done.incumbent) == (REFUSED, "it guesses", None)
    assert production_version(store.client, "histo-b3") is None
    assert str(store.client.get_model_version_by_alias("histo-b3", "candidate").version) == "1"


def test_who_decides_has_a_number_where_there_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert Decision(FIRST, "1", None, "").user == "uid 12345"
