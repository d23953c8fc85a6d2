"""Models over features that other programs have made: from `cv` to the registry, the gate, other runtimes and a server."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

import histo_mlflow
from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.tiles.open import open_tiles
from tests.conftest import put_into_production
from tests.feature_writers import CLASSES, N_FEATURES, WRITERS, draw_features, write_slides, write_trident
from tests.servers import model_server

pytestmark = pytest.mark.usefixtures("work")
PRODUCTION = "models:/histo-b3/Production"


@pytest.mark.parametrize("program", WRITERS)
def test_slides_are_cross_validated_and_become_a_version(work: Path, program: str) -> None:
    source = str(write_slides(work / "slides", program, n_slides=24, n_tiles=4))
    found = histo_mlflow.cv(data=source, folds=2)
    tiles = open_tiles(source)
    assert found.oof.overall["accuracy"].value > 0.85
    groups = found.oof.predictions.groups
    assert groups is not None
    assert len(set(groups)) == 48
    split = mlflow.artifacts.load_dict(f"runs:/{found.run_id}/evaluation/oof/summary.json")
    assert split["n"] == len(tiles)
    model = mlflow.pyfunc.load_model(PRODUCTION)  # there at once: it is better than chance
    table = model.predict(tiles.images)
    assert list(table) == ["label", *(f"prob_{name}" for name in CLASSES)]
    pd.testing.assert_frame_equal(table, model.predict(pd.DataFrame(tiles.images)))
    assert (table["label"] == np.array(CLASSES)[tiles.labels]).mean() > 0.85
    evaluated = histo_mlflow.evaluate(data=source).test.predictions.probabilities
    np.testing.assert_allclose(evaluated, table.iloc[:, 1:].to_numpy(), atol=1e-6)


@pytest.fixture
def trained(work: Path) -> Path:
    """A folder of slides, from which the version in Production has learnt."""
    folder = write_slides(work / "slides", "TRIDENT")
    histo_mlflow.train(data=str(folder))
    put_into_production()
    return folder


def test_the_gate_compares_versions_over_the_same_features(work: Path, trained: Path) -> None:
    test = str(write_slides(work / "test", "TRIDENT", n_slides=24, n_tiles=6))
    found = histo_mlflow.train(data=str(trained), test_data=test, class_weights="balanced")
    decision = mlflow.artifacts.load_dict(f"runs:/{found.run_id}/decision.json")
    assert decision["what"] in {"promoted", "refused"}
    assert decision["evidence"]["n_tiles"] == 288
    compared = histo_mlflow.compare(model_a="models:/histo-b3/1", model_b="models:/histo-b3/2", data=test)
    assert compared.comparison.values["accuracy"][0] > 0.8


def test_a_version_over_other_features_is_not_scored(work: Path, trained: Path) -> None:
    other = work / "other"
    for label, name in enumerate(CLASSES):
        (other / name).mkdir(parents=True)
        for k in range(6):
            values = draw_features(label, seed=k, n_features=8)
            write_trident(other / name / f"{name}{k}.h5", values, encoder="conch")
    found = histo_mlflow.train(data=str(other), test_data=str(other), allow_leak="nothing is scored on them")
    decision = mlflow.artifacts.load_dict(f"runs:/{found.run_id}/decision.json")
    assert decision["what"] == "refused"
    assert "takes 16 features by uni_v1" in decision["reason"]
    assert "nothing was scored" in decision["reason"]
    with pytest.raises(RequestError, match=r"takes 16 features by uni_v1, and .* holds 8 features by conch"):
        histo_mlflow.evaluate(data=str(other))
    with pytest.raises(RequestError, match="takes 16 features by uni_v1"):
        histo_mlflow.predict(data=str(other), output="p.csv")
    assert not Path("p.csv").exists()


def test_a_model_over_features_is_used(work: Path, trained: Path) -> None:
    write_trident(work / "new.h5", draw_features(1, seed=99))
    table = pd.read_csv(histo_mlflow.predict(data="new.h5", output="new.csv"))
    assert table["tile"].tolist()[:2] == ["new_0_1024", "new_512_1024"]
    assert (table["label"] == "malignant").mean() > 0.5
    for form in ("onnx", "torchscript", "openvino"):
        folder = histo_mlflow.export(to=form, data=str(trained), output=form).path
        assert json.loads((folder / "export.json").read_text())["largest_probability_difference"] < 1e-5
    with pytest.raises(OptionError, match="this one takes features"):
        histo_mlflow.export(to="wsinfer", data=str(trained), output="w")
    assert not Path("w").exists()
    model = mlflow.pyfunc.load_model(PRODUCTION)
    good = draw_features(0)
    assert len(model.predict(good.tolist())) == 12
    assert len(model.predict([])) == 0
    for wrong, message in (
        (good[:, :5], r"float32 of shape \(12, 5\); numbers \(n_tiles, 16\)"),
        (np.zeros((2, 32, 32, 3), np.uint8), r"shape \(2, 32, 32, 3\)"),
        (np.where(good > 2, np.nan, good), "holds what is not a number"),
        (good.astype(str), "numbers"),
    ):
        with pytest.raises(MlflowException, match=message):
            model.predict(wrong)


def test_pixels_and_features_are_not_mixed(work: Path, trained: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    np.savez(work / "tiles.npz", data=images, labels=np.arange(20) % 2, classes=np.array(CLASSES))
    with pytest.raises(RequestError, match=r"takes 16 features by uni_v1, and .* holds pixels; give what the model takes"):
        histo_mlflow.evaluate(data="tiles.npz")
    with pytest.raises(RequestError, match=r"test_data=.* holds pixels, data=.* 16 features by uni_v1; give both in one form"):
        histo_mlflow.train(data=str(trained), test_data="tiles.npz")
    asked = {"backbone": "lite0", "trainable": "all", "image_size": 64, "augment": "symmetries", "stain": "all"}
    for name, value in asked.items():
        with pytest.raises(OptionError, match=f"{name}=.*: has no meaning"):
            histo_mlflow.train(data=str(trained), **{name: value})
    with pytest.raises(OptionError, match="holds features already"):
        histo_mlflow.features(data=str(trained), output="again.h5")


@pytest.mark.usefixtures("small_network")
def test_features_of_our_own_file_make_the_same_head_as_the_tiles(work: Path) -> None:
    labels = np.arange(60) % 2
    images = np.random.default_rng(1).integers(0, 200, (60, 32, 32, 3), np.uint8)
    images += (30 * labels[:, None, None, None]).astype(np.uint8)
    np.savez("t.npz", data=images, labels=labels, classes=np.array(CLASSES))
    shared = {"weights": "none", "seed": 3}
    histo_mlflow.features(data="t.npz", output="f.h5", **shared)
    direct = histo_mlflow.train(data="t.npz", trainable="head", augment="none", register=False, **shared).val.predictions
    stored = histo_mlflow.train(data="f.h5", register=False, seed=3).val.predictions
    np.testing.assert_allclose(direct.probabilities, stored.probabilities, atol=1e-6)
    np.testing.assert_array_equal(direct.labels, stored.labels)


def test_a_run_goes_on(work: Path) -> None:
    found = histo_mlflow.train(data=str(write_slides(work / "slides", "STAMP")), register=False)
    params = mlflow.get_run(found.run_id).data.params
    assert (params["backbone"], params["trainable"], params["augment"]) == (f"features:{N_FEATURES}", "head", "none")
    client = mlflow.MlflowClient()
    client.set_tag(found.run_id, "histo.ended", "FAILED")
    client.set_terminated(found.run_id, "FAILED")
    again = histo_mlflow.train(resume=found.run_id, data=str(work / "slides"))
    np.testing.assert_array_equal(found.val.predictions.probabilities, again.val.predictions.probabilities)


@pytest.mark.slow
def test_it_is_served(work: Path, trained: Path) -> None:
    import requests

    with model_server(PRODUCTION, work) as url:
        answer = requests.post(f"{url}/invocations", json={"inputs": draw_features(1).tolist()}, timeout=60)
        assert answer.status_code == 200
        assert len(answer.json()["predictions"]) == 12
        wrong = requests.post(f"{url}/invocations", json={"inputs": [[1.0]]}, timeout=60)
        assert wrong.status_code == 400
        assert "numbers (n_tiles, 16) are needed" in wrong.text
