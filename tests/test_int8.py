"""A model in 8 bits, made by NNCF and run by OpenVINO: exported, predicted with, refused, nothing left behind."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from histo_mlflow.models import exports
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.options import OPENVINO, OPENVINO_INT8
from histo_mlflow.models.quantized import MOST_LIKELIHOOD_LOST, quantize
from histo_mlflow.pipeline import quantize as making
from histo_mlflow.slides.tile_table import read_tile_table
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.decisions import register_model
from histo_mlflow.tracking.logged_models import log_model
from histo_mlflow.tracking.registry import VersionFacts
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store
from tests.coloured_slides import write_slide
from tests.conftest import SIZE_PX, Histo, copy_store, save_npz
from tests.small_network import network_with_opinions, using_small_network

CLASSES = ("A", "B", "C")
WIDE = ("--margin", "0.2", "--loss-margin", "0.8", "--class-margin", "0.4")


def _labelled_by(network: TileClassifier, pool: TileSet, n_of_class: int) -> TileSet:
    """Return tiles of which the network is right each time, so that each other word of the one in 8 bits is an error."""
    with torch.inference_mode():
        labels = network(torch.from_numpy(np.array(pool.images))).argmax(dim=1).numpy()
    rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[:n_of_class] for k in range(len(CLASSES))]))
    assert len(rows) == n_of_class * len(CLASSES)
    return replace(pool, images=np.array(pool.images[rows]), labels=labels[rows], classes=CLASSES)


@pytest.fixture(scope="module")
def labelled(store_template: Path) -> TileSet:
    return open_tiles(store_template.parent / "tiles.npz")


@pytest.fixture(scope="module")
def store_template(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with a network of three classes in Production, beside tiles of which it is right each time."""
    folder = tmp_path_factory.mktemp("registered")
    copy_store(store_template, folder)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    pool = draw_demo(n_tiles=450, tile_size_px=SIZE_PX, seed=3)
    with using_small_network():
        torch.manual_seed(0)
        network = network_with_opinions(pool, len(CLASSES))
        tiles = _labelled_by(network, pool, 50)
        np.savez(folder / "tiles.npz", data=tiles.images, labels=tiles.labels, classes=CLASSES)
        store = open_store()
        with open_run(store, "train") as run:
            uri = log_model(run, network, ModelFacts(CLASSES, SIZE_PX, "0" * 64, is_synthetic=False), "a card", step=1)
        register_model(store, uri, "histo-b3", VersionFacts(run.id, tags={"source_run": run.id}))
        yield folder / "mlflow.db"


@pytest.fixture
def tiles_file(labelled: TileSet, work: Path) -> Path:
    np.savez(work / "tiles.npz", data=labelled.images, labels=labelled.labels, classes=CLASSES)
    return work / "tiles.npz"


def test_it_is_made_once_and_serves_export_and_predict_until_the_margins_refuse_it(
    work: Path, tiles_file: Path, labelled: TileSet, histo_here: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = histo_here("export", "--to", OPENVINO_INT8, "--data", "tiles.npz", *WIDE)
    assert done.returncode == 0, done.stderr
    folder = work / f"exported-{OPENVINO_INT8}"
    assert {file.name for file in folder.iterdir()} == {"export.json", "model.xml", "model.bin"}
    facts = json.loads((folder / "export.json").read_text())
    assert (facts["calibrated_on"]["n_tiles"], facts["compared_on"]["n_tiles"]) == (50, 100)
    assert 0 < facts["layers_in_8_bits"] <= facts["layers"]
    accuracy = facts["balanced_accuracy"]
    assert accuracy["fp32"] == 1
    assert accuracy["difference"] == pytest.approx(accuracy["int8"] - 1)
    assert f"{accuracy['int8']:.4f} in 8 bits, 1.0000 in full precision" in done.stdout

    logits = exports.open_written(OPENVINO_INT8, folder)(np.array(labelled.images))
    assert (logits.argmax(axis=1) == labelled.labels).mean() > 0.8
    full = mlflow.pyfunc.load_model("models:/histo-b3/Production").predict(labelled.images).filter(like="prob_").to_numpy()
    assert np.abs(torch.softmax(torch.from_numpy(logits), 1).numpy() - full).max() > 1e-4, "8 bits can't say just the same"

    monkeypatch.setattr(making, "quantize", None)  # from here on it must come from the cache
    done = histo_here(
        "predict", "--data", "tiles.npz", "--runtime", OPENVINO_INT8, "--calibration-data", "tiles.npz", *WIDE
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{accuracy['int8']:.4f} in 8 bits" in done.stdout
    assert pd.read_csv("predictions.csv")["label"].tolist() == [CLASSES[k] for k in logits.argmax(axis=1)]

    before = set(work.iterdir())
    done = histo_here("export", "--to", OPENVINO_INT8, "--data", "tiles.npz", "--margin", "0.001", "--output", "strict")
    assert done.returncode == 1
    assert "openvino-int8 is refused: balanced accuracy " in done.stderr
    assert "NOT MET: balanced accuracy" in done.stderr
    assert "nothing was written: use openvino" in done.stderr
    assert set(work.iterdir()) == before


@pytest.mark.parametrize("runtime", [OPENVINO, OPENVINO_INT8])
def test_a_slide_is_shown_to_what_predict_would_ask(
    runtime: str, work: Path, tiles_file: Path, labelled: TileSet, histo_here: Histo
) -> None:
    """The slide consists of the tiles, of which the exported model says the same."""
    exporting, gate = ("export", "--to", runtime, "--data", "tiles.npz"), WIDE if runtime == OPENVINO_INT8 else ()
    assert histo_here(*exporting, *gate).returncode == 0
    images = np.array(labelled.images)
    rows = images.reshape(10, 15, *images.shape[1:]).swapaxes(1, 2).reshape(10 * SIZE_PX, 15 * SIZE_PX, 3)
    write_slide(work / "one.tif", rows, microns=0.5, n_levels=1)
    Image.new("L", (15, 10), 255).save("everywhere.png")
    asked = ("slide", "--slides", "one.tif", "--output", "scored", "--tissue", "everywhere.png", "--model-mpp", "0.5")
    calibrated = ("--calibration-data", "tiles.npz", *gate) if gate else ()
    done = histo_here(*asked, "--runtime", runtime, *calibrated)
    assert done.returncode == 0, done.stderr
    found = read_tile_table(work / "scored" / "one.csv")
    logits = torch.from_numpy(exports.open_written(runtime, work / f"exported-{runtime}")(images))
    np.testing.assert_allclose(found.probabilities, torch.softmax(logits, 1).numpy(), atol=1e-5)
    assert found.probabilities.std() > 0.1
    assert "1 done before" in histo_here(*asked, "--runtime", runtime, *calibrated).stdout
    assert "1 done;" in histo_here(*asked).stdout, "by another runtime it may say something else"


def test_too_few_tiles_are_refused_before_anything_is_made(work: Path, tiles_file: Path, histo_here: Histo) -> None:
    done = histo_here("predict", "--data", "tiles.npz", "--runtime", OPENVINO_INT8, "--calibration-data", "tiles.npz")
    assert done.returncode == 2
    assert "too few labelled tiles for openvino-int8" in done.stderr
    assert "you have 100; needed are about" in done.stderr
    assert not list((work / "cache").glob("*/int8.zip"))
    assert not (work / "predictions.csv").exists()


def test_a_missing_package_is_named(tiles_file: Path, histo_here: Histo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    done = histo_here("export", "--to", OPENVINO_INT8, "--data", "tiles.npz")
    assert done.returncode == 2
    assert done.stderr == "Error: openvino-int8 needs the package nncf: python -m pip install -e '.[export]'\n"


def test_of_tiles_that_it_has_learnt_from_only_validation_tiles_are_taken(
    work: Path, tiny_tiles: TileSet, histo_here: Histo
) -> None:
    file = save_npz(work / "learnt.npz", draw_demo(n_tiles=180, tile_size_px=SIZE_PX))
    learn = ("--data", "learnt.npz", "--weights", "none", "--epochs", "1", "--batch-size", "30", "--val-fraction", "0.5")
    done = histo_here("train", *learn, "--model-name", "mine")
    assert done.returncode == 0, done.stderr
    model = ("--model", "models:/mine/1", "--runtime", OPENVINO_INT8)
    save_npz(work / "new.npz", tiny_tiles)
    for named in ((), ("--calibration-data", "learnt.npz")):
        done = histo_here("predict", "--data", "new.npz", *model, *named)
        assert done.returncode == 2
        assert "30 tiles of learnt.npz calibrate, 60 others are compared" in done.stdout, "90 are its validation tiles"
    file.rename(work / "away.npz")
    done = histo_here("predict", "--data", "new.npz", *model)
    assert done.returncode == 2
    assert "'learnt.npz' does not exist" in done.stderr
    save_npz(work / "learnt.npz", tiny_tiles)
    done = histo_here("predict", "--data", "new.npz", *model)
    assert done.returncode == 2
    assert "learnt.npz holds other tiles than models:/mine/1 has learnt from; name them: --calibration-data" in done.stderr
    done = histo_here("predict", "--data", "new.npz", *model, "--calibration-data", "new.npz")
    assert done.returncode == 2
    assert "18 tiles of new.npz calibrate, 36 others are compared" in done.stdout, "it has not learnt from these"


def test_a_model_without_a_run_must_be_given_tiles(work: Path, tiles_file: Path, histo_here: Histo) -> None:
    done = histo_here("predict", "--data", "tiles.npz", "--runtime", OPENVINO_INT8)
    assert done.returncode == 2
    assert "calibration_data is missing" in done.stderr


def test_layers_that_cost_too_much_go_back_to_full_precision(tmp_path: Path) -> None:
    """One channel has a thousand times the others' range and a thousandth of their weight: 8 bits leave nothing of either."""
    torch.manual_seed(1)
    pool = draw_demo(n_tiles=60, tile_size_px=SIZE_PX, seed=4)
    with using_small_network():
        network = network_with_opinions(pool)
    with torch.inference_mode():
        for block in network.backbone.features[2]:  # type: ignore[index, union-attr]
            _, (_, norm, _), _, (projection, _) = block.block
            norm.weight[0], norm.bias[0], projection.weight[:, 0] = (
                1000 * norm.weight[0],
                1000 * norm.bias[0],
                projection.weight[:, 0] / 1000,
            )
        labels = network(torch.from_numpy(np.array(pool.images))).argmax(dim=1).numpy()
    assert len(np.unique(labels)) > 3
    full, small = tmp_path / "full", tmp_path / "small"
    for folder in (full, small):
        folder.mkdir()
    exports.write(network, OPENVINO, full, classes=pool.classes, microns_per_pixel=0.5)
    layers = quantize(full, small, np.array(pool.images), labels)
    assert 0 < layers.n_int8 < layers.n_all
    before = _loss(exports.open_written(OPENVINO, full)(np.array(pool.images)), labels)
    after = _loss(exports.open_written(OPENVINO_INT8, small)(np.array(pool.images)), labels)
    assert after - before < MOST_LIKELIHOOD_LOST + 1e-3


def _loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))


@pytest.mark.slow
def test_a_network_with_real_weights_on_real_tissue(work: Path, real_data: Path, histo_here: Histo) -> None:
    stored = open_tiles(f"{real_data / 'pathmnist_test718_28.npz'}#test")
    images = [
        np.asarray(Image.fromarray(np.asarray(tile)).resize((64, 64), Image.Resampling.BICUBIC)) for tile in stored.images
    ]
    np.savez(work / "real.npz", data=np.stack(images), labels=stored.labels, classes=stored.classes)
    learn = ("--data", "real.npz", "--backbone", "lite0", "--trainable", "head", "--val-fraction", "0.8")
    done = histo_here("train", *learn, "--model-name", "real")
    assert done.returncode == 0, done.stderr
    export = ("export", "models:/real/1", "--to", OPENVINO_INT8, "--data", "real.npz")
    done = histo_here(*export, "--margin", "0.05", "--loss-margin", "0.1")
    assert done.returncode == 0, done.stderr
    facts = json.loads((work / f"exported-{OPENVINO_INT8}" / "export.json").read_text())
    assert facts["calibrated_on"]["part"] == "val"
    assert facts["calibrated_on"]["n_tiles"] + facts["compared_on"]["n_tiles"] == round(0.8 * 718)
    assert facts["layers_in_8_bits"] > 0.7 * facts["layers"]
    assert abs(facts["balanced_accuracy"]["difference"]) < 0.03
