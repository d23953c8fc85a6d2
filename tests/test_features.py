"""Features on their way through the cache, the job that writes them for others, and runs that fit a head on them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import mlflow
import numpy as np
import pytest
import torch

import histo_mlflow
from histo_mlflow.errors import TilesChangedError, WorkError
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.infer import infer
from histo_mlflow.models.backbones import DEFAULT_BACKBONE
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.features import FeatureNetwork, View, digest_backbone
from histo_mlflow.models.weights import InitialWeights, make_network
from histo_mlflow.pipeline import features as store_of_features
from histo_mlflow.pipeline.features import stored_features
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.store import Store
from tests.conftest import PROJECT, SIZE_PX, Histo, save_npz
from tests.learnings import assert_same_metrics, assert_same_weights

pytestmark = pytest.mark.usefixtures("small_network")
CPU = Compute(torch.device("cpu"), is_bf16=False)


@pytest.fixture
def network() -> TileClassifier:
    seed_everything(0)
    return TileClassifier(n_classes=9, tile_size_px=SIZE_PX).eval()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many tiles each batch had of which features were computed."""
    seen: list[int] = []
    forward = FeatureNetwork.forward

    def count(self: FeatureNetwork, tiles: torch.Tensor) -> torch.Tensor:
        seen.append(len(tiles))
        return forward(self, tiles)

    monkeypatch.setattr(FeatureNetwork, "forward", count)
    return seen


def _entries(work: Path) -> list[Path]:
    return sorted(file for file in (work / "cache").glob("*/features.h5") if file.parent.suffix != ".draft")


@pytest.mark.parametrize("view", [View(), View(3, is_mirrored=True)])
def test_kept_features_are_the_networks_own(work: Path, tiny_tiles: TileSet, network: TileClassifier, view: View) -> None:
    kept = stored_features(network, tiny_tiles, CPU, view)
    with torch.inference_mode():
        direct = network.features(view.of(torch.from_numpy(np.array(tiny_tiles.images))))
    np.testing.assert_allclose(kept, direct, rtol=1e-5, atol=1e-5)
    assert (kept.shape, kept.dtype) == ((54, network.n_features), np.float32)


def test_they_are_computed_once_for_each_network_view_and_set(
    work: Path, tiny_tiles: TileSet, network: TileClassifier, counted: list[int]
) -> None:
    first = stored_features(network, tiny_tiles, CPU)
    np.testing.assert_array_equal(stored_features(network, tiny_tiles, CPU), first)
    assert sum(counted) == 54
    stored_features(network, tiny_tiles, CPU, View(1))
    with torch.no_grad():
        next(network.backbone.parameters())[0] += 1
    stored_features(network, tiny_tiles, CPU)
    assert sum(counted) == 3 * 54
    assert len(_entries(work)) == 3


def test_others_can_not_read_them(work: Path, tiny_tiles: TileSet, network: TileClassifier) -> None:
    stored_features(network, tiny_tiles, CPU)
    assert _entries(work)[0].parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["cut", "zeroed", "gone", "unsigned"])
def test_a_damaged_file_is_made_anew(
    work: Path, tiny_tiles: TileSet, network: TileClassifier, counted: list[int], damage: str
) -> None:
    before = np.array(stored_features(network, tiny_tiles, CPU))
    (file,) = _entries(work)
    if damage == "cut":
        os.truncate(file, file.stat().st_size - 100)
    elif damage == "zeroed":
        with file.open("r+b") as opened:
            opened.seek(-4000, os.SEEK_END)
            opened.write(bytes(4000))
    else:
        (file if damage == "gone" else file.with_name("entry.json")).unlink()
    np.testing.assert_array_equal(stored_features(network, tiny_tiles, CPU), before)
    assert sum(counted) == 2 * 54


KILLED = """
import os, signal, sys
import torch
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.feature_file import FeatureWriter
from histo_mlflow.pipeline import features
from histo_mlflow.tiles.demo import draw_demo
from tests.small_network import using_small_network

features._BLOCK_ROWS = 10
append = FeatureWriter.append

def die_in_the_third(self, rows):
    if self.n_finished == 20:
        with self._path.open("r+b") as file:
            file.seek(self._offset + 20 * self._shape[1] * 4)
            file.write(rows.tobytes()[:1000])
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, rows)

FeatureWriter.append = die_in_the_third
from histo_mlflow.learning import infer
infer._MAX_BATCH_TILES = 5
with using_small_network():
    seed_everything(0)
    network = TileClassifier(n_classes=9, tile_size_px=32).eval()
    features.stored_features(network, draw_demo(n_tiles=54, tile_size_px=32), Compute(torch.device("cpu"), is_bf16=False))
"""


def test_a_killed_process_has_its_work_gone_on_with(
    work: Path, tiny_tiles: TileSet, network: TileClassifier, counted: list[int]
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment, cwd=work, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not _entries(work), "half of a file was taken for a whole one"
    (draft,) = (work / "cache").glob("*.draft")
    assert draft.stat().st_mode & 0o077 == 0
    kept = stored_features(network, tiny_tiles, CPU)
    assert sum(counted) == 34
    direct = infer(FeatureNetwork(network), tiny_tiles.images, compute=CPU, description=None)
    np.testing.assert_allclose(kept, direct, rtol=1e-5, atol=1e-5)
    assert sorted(path.name for path in _entries(work)[0].parent.iterdir()) == ["entry.json", "features.h5"]


def test_tiles_that_change_meanwhile_leave_no_features(
    tiny_npz: Path, work: Path, network: TileClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = open_tiles(tiny_npz)
    monkeypatch.setattr(store_of_features, "_BLOCK_ROWS", 10)
    forward = FeatureNetwork.forward

    def touch(self: FeatureNetwork, batch: torch.Tensor) -> torch.Tensor:
        os.utime(tiny_npz)
        return forward(self, batch)

    with monkeypatch.context() as patch, pytest.raises(TilesChangedError):
        patch.setattr(FeatureNetwork, "forward", touch)
        stored_features(network, tiles, CPU)
    assert not _entries(work)
    assert not list((work / "cache").glob("*.draft/*.progress"))


def test_the_job_writes_a_file_that_others_can_read(tiny_npz: Path, work: Path, tiny_tiles: TileSet) -> None:
    groups = np.array([f"patient {k % 6}" for k in range(54)])
    np.savez(work / "grouped.npz", data=tiny_tiles.images, labels=tiny_tiles.labels, groups=groups)
    found = histo_mlflow.features(data=str(work / "grouped.npz"), output=str(work / "a.h5"), weights="none")
    seed_everything(0)
    network = TileClassifier(n_classes=9, tile_size_px=SIZE_PX).eval()
    assert (found.n_tiles, found.n_features) == (54, network.n_features)
    assert found.encoder_sha256 == digest_backbone(network)
    with h5py.File(found.path) as file:
        assert sorted(file) == ["features", "groups", "labels"]
        expected = infer(FeatureNetwork(network), tiny_tiles.images, compute=CPU, description=None)
        np.testing.assert_allclose(file["features"][:], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(file["labels"][:], tiny_tiles.labels)
        assert file["groups"].asstr()[:].tolist() == groups.tolist()
        assert tuple(file.attrs["classes"]) == tiny_tiles.classes
        attributes = dict(file["features"].attrs)
        assert attributes["encoder"] == found.encoder == DEFAULT_BACKBONE
        assert attributes["encoder_sha256"] == found.encoder_sha256
        assert attributes["tiles_sha256"] == open_tiles(work / "grouped.npz").fingerprint
    assert not list(work.glob("*a.h5.draft"))


@pytest.mark.parametrize(("output", "said"), [("no/a.h5", "does not exist"), (".", "is a folder")])
def test_a_place_that_can_not_be_written_is_refused_before_the_work(
    tiny_npz: Path, histo_here: Histo, output: str, said: str
) -> None:
    done = histo_here("features", "--data", str(tiny_npz), "--output", output, "--weights", "none")
    assert done.returncode == 2
    assert said in done.stderr


def _train(file: Path, **options: Any) -> Any:
    return histo_mlflow.train(data=str(file), weights="none", trainable="head", val_fraction=0.4, **options)


def test_a_head_is_trained_registered_and_answers_as_its_run_did(
    tiny_npz: Path, work: Path, store: Store, tiny_tiles: TileSet
) -> None:
    test = save_npz(work / "test.npz", open_tiles("demo#3"))
    found = _train(tiny_npz, augment="none", test_data=str(test), image_size=SIZE_PX, keep_checkpoints="all")
    run = store.client.get_run(found.run_id)
    files = {Path(item.path).name for item in store.client.list_artifacts(found.run_id, "checkpoints")}
    assert files == {"best.safetensors", f"epoch_{found.best_epoch:03d}.safetensors"}, "one network, whatever was tried"
    assert mlflow.artifacts.load_dict(f"runs:/{found.run_id}/about.json")["selected"].startswith("C=")
    costs = [each.value for each in store.client.get_metric_history(found.run_id, "head/C")]
    assert len(costs) >= found.best_epoch
    assert "learning_rate" not in run.data.metrics
    assert found.version == "1"
    assert {"neighbours/k", "neighbours/val/accuracy", "neighbours/test/balanced_accuracy"} <= run.data.metrics.keys()

    for part, images in (("val", tiny_tiles.images), ("test", open_tiles(test).images)):
        folder = store.client.download_artifacts(found.run_id, f"evaluation/{part}", str(work))
        kept = np.load(Path(folder) / "predictions.npz")
        table = mlflow.pyfunc.load_model("models:/histo-b3/1").predict(np.array(images[kept["indices"]]))
        np.testing.assert_allclose(table.iloc[:, 1:].to_numpy(), kept["probabilities"], atol=1e-4)
    # Nothing but the head has learnt.
    seed_everything(0)
    fresh, _ = make_network(InitialWeights(DEFAULT_BACKBONE, None, "none"), classes=tiny_tiles.classes, tile_size_px=SIZE_PX)
    weights = store.client.download_artifacts(found.run_id, "checkpoints/best.safetensors", str(work))
    from safetensors.torch import load_file

    stored = load_file(weights)
    changed = {name for name, tensor in fresh.state_dict().items() if not torch.equal(tensor, stored[name])}
    assert changed == {"backbone.classifier.1.weight", "backbone.classifier.1.bias"}


def test_the_folds_of_a_cross_validation_share_their_features(
    tiny_npz: Path, work: Path, counted: list[int], store: Store
) -> None:
    found = histo_mlflow.cv(
        data=str(tiny_npz), weights="none", trainable="head", folds=3, rotations="none", keep_checkpoints="best"
    )
    assert sum(counted) == 4 * 54, "once for each view"
    assert len(_entries(work)) == 4
    assert len(found.folds) == 3
    assert found.version == "1"
    assert "head/C" in store.client.get_run(found.folds["run_id"][0]).data.metrics
    assert "oof/accuracy" in store.client.get_run(found.run_id).data.metrics


def test_a_run_that_failed_goes_on_to_the_same_head(
    tiny_npz: Path, store: Store, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(tiny_npz, augment="none", register=False)
    with monkeypatch.context() as patch, pytest.raises(WorkError, match="no more"):
        patch.setattr("histo_mlflow.pipeline.publish.hand_on", _fail)
        _train(tiny_npz, augment="none", register=False)
    failed = next(run.info.run_id for run in store.client.search_runs(["0"]) if run.info.status == "FAILED")
    resumed = histo_mlflow.train(data=str(tiny_npz), resume=failed)
    assert resumed.run_id == failed
    assert sum(counted) == 54
    assert_same_weights(store, failed, whole.run_id)
    assert_same_metrics(store, failed, whole.run_id)


def _fail(*_: object, **__: object) -> None:
    raise WorkError("no more")
