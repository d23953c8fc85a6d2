"""What runs are called."""

from pathlib import Path

import pytest

from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.jobs.cv import Cv
from histo_mlflow.jobs.train import Train
from histo_mlflow.options import build
from histo_mlflow.pipeline.names import RunName, name_learning, short_backbone, short_data, short_model
from histo_mlflow.tracking.options import RunOptions
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store, open_store


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"data": "sets/crc5.npz", "backbone": "lite0", "trainable": "head"}, "crc5 lite0 head"),
        ({"data": "demo"}, "demo efficientnet_b3"),
        ({"data": "a/CRC-VAL-HE-7K/", "epochs": 5, "seed": 3}, "CRC-VAL-HE-7K efficientnet_b3 epochs=5 seed=3"),
        (
            {"data": "x.npz", "epochs": 20, "device": "cpu", "precision": "fp32"},
            "x efficientnet_b3",
        ),  # the default, or no matter
        ({"data": "x.npz", "weights": "/models/mine.safetensors"}, "x efficientnet_b3 weights=mine.safetensors"),
        (
            {"data": "x.npz", "epochs": 2, "seed": 3, "batch_size": 8, "patience": 2, "ema_decay": 0.9, "trainable": "gradual"},
            "x efficientnet_b3 gradual epochs=2 batch_size=8 ema_decay=0.9 +2",
        ),
    ],
)
def test_a_training_is_called_by_what_tells_it_apart(given: dict[str, object], name: str) -> None:
    assert name_learning(build(Train, given, given=frozenset(given))) == name


def test_a_cross_validation_says_its_folds() -> None:
    assert name_learning(build(Cv, {"data": "x.npz", "folds": 3}), encoder="uni@1") == "x uni 3-fold"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("pathmnist.npz#test", "pathmnist#test"),
        ("https://me:pw@host/tiles/set.tar.gz?sig=abc", "set.tar"),
        ("a.npz,b.npz,c", "a+2"),
        ("s3://bucket/folder/", "folder"),
        ("features.h5", "features"),
        ("", ""),
        ("sets/crc5/train", "crc5/train"),
        ("crc5/Test/", "crc5/Test"),
        ("train", "train"),
        ("/train", "train"),
        ("s3://bucket/set/train.npz#val", "set/train#val"),
    ],
)
def test_data_in_short(source: str, name: str) -> None:
    assert short_data(source) == name


def test_backbones_and_models_in_short() -> None:
    assert [short_backbone(name) for name in ("timm:resnet18", "hub:bioptimus/H0-mini@1", "nets/mine.pt2")] == [
        "resnet18",
        "H0-mini",
        "mine",
    ]
    addresses = (
        "models:/histo-b3/3",
        "models:/histo-b3@candidate",
        "a" * 32,
        f"runs:/{'b' * 32}/checkpoints/epoch_007.safetensors",
    )
    assert [short_model(address) for address in addresses] == [
        "histo-b3/3", "histo-b3/candidate", "aaaaaaaa", "bbbbbbbb/epoch_007.safetensors",
    ]  # fmt: skip


def _renamed(store: Store, name: RunName) -> str:
    with open_run(store, name.at_first) as run:
        name.end(run, "val 0.810")
        name.end(run, "test 0.790")
    return str(store.client.get_run(run.id).info.run_name)


def test_the_figure_joins_at_the_end_unless_the_name_is_the_users(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _renamed(store, RunName.of("crc5 lite0", RunOptions())) == "crc5 lite0 test 0.790"
    assert _renamed(store, RunName.of("crc5 lite0", RunOptions(run_name="mine"))) == "mine"
    for own, name in (("trial of mlflow run", "trial of mlflow run"), ("able-newt-960", "crc5 lite0 test 0.790")):
        begun = store.client.create_run("0", run_name=own).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", begun)
        assert _renamed(store, RunName.of("crc5 lite0", RunOptions())) == name


@pytest.mark.parametrize("name", ["x" * 251, "two\nlines"])
def test_a_name_that_has_no_room_is_refused(name: str) -> None:
    for option in ("run_name", "experiment"):
        with pytest.raises(OptionError, match=f"{option}=.*at most 250 characters, on one line"):
            build(RunOptions, {option: name})


def test_an_experiment_is_made_once_and_its_folds_lie_in_it(store: Store) -> None:
    named = open_store(experiment="crc5")
    assert named.client.get_experiment(named.experiment_id).name == "crc5"
    assert named.client.get_experiment(named.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    assert open_store(experiment="crc5").experiment_id == named.experiment_id != store.experiment_id
    with open_run(named, "cv") as parent, open_run(store, "fold 1", parent=parent) as fold:
        assert fold.experiment_id == named.experiment_id


def test_a_run_that_mlflow_run_has_begun_elsewhere_can_not_move(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", store.client.create_run("0").info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert open_store(experiment="Default").experiment_id == "0"
    with pytest.raises(RequestError, match=r"begun this run in 'Default' already.*--experiment-name 'my set'"):
        open_store(experiment="my set")
    assert store.client.get_experiment_by_name("my set") is None
    assert Path("mlflow.db").exists()
