import concurrent.futures
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.tracking.looks import count_looks, note_looks
from histo_mlflow.tracking.model_flavor import ModelFacts, load_saved
from histo_mlflow.tracking.registry import (
    RegistryOptions,
    located_model,
    log_model,
    production_version,
    register_model,
)
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store, open_store

FACTS = ModelFacts(("a", "b", "c"), 32, 0.5, "EfficientNet-B3", "none", "random", "demo", "f" * 64, True, "epoch 1")


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
    done = register_model(store, uri, RegistryOptions(), run_id=run.id, description="words", tags={"source_run": run.id})
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
        return register_model(open_store(), item[0], RegistryOptions(), run_id=item[1], description="", tags={}).version

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


def test_a_promotion_that_a_crash_cut_short_is_completed(store: Store) -> None:
    _register(store, Small(0.0))
    store.client.transition_model_version_stage("histo-b3", "1", "None")
    _register(store, Small(1.0))
    assert store.client.get_model_version("histo-b3", "1").current_stage == "Production"
    assert mlflow.pyfunc.load_model("models:/histo-b3/Production").predict(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 4)
