"""The folder for LazySlide: its class says what the model says, without any package of ours and within LazySlide itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.models import exports
from histo_mlflow.models.classifier import TileClassifier, with_temperature
from histo_mlflow.models.options import LAZYSLIDE
from histo_mlflow.tiles.demo import draw_demo
from tests.small_network import network_with_opinions

SIZE_PX = 32
CLASSES = tuple("ABCDEFGHI")

# Another environment's Python may be named: LazySlide brings a hundred packages.
LAZYSLIDE_PYTHON = os.environ.get("HISTO_LAZYSLIDE_PYTHON", sys.executable)

_ASK = """
import sys
sys.path.insert(0, "there")
sys.modules |= dict.fromkeys(["histo_mlflow", "lazyslide", "lazyslide_models", "mlflow", "timm"])
import numpy as np, torch
from histo_tiles import {kind}
given, model = np.load("given.npy"), {kind}()
model.to("cpu")
said = model.predict({batch})
assert tuple(said) == model.columns, said
np.savez("said.npz", **said)
"""
_IN_LAZYSLIDE = """
import sys
sys.path.insert(0, "there")
import lazyslide as zs, numpy as np
from lazyslide_models.base import TilePredictionModelProtocol
from wsidata import open_wsi
from histo_tiles import TileModel
model = TileModel()
assert isinstance(model, TilePredictionModelProtocol)
wsi = open_wsi(sys.argv[1], store=None)
zs.pp.find_tissues(wsi)
zs.pp.tile_tissues(wsi, tile_px=128, mpp=model.microns_per_pixel)
zs.tl.tile_prediction(wsi, model, batch_size=7, device="cpu", pbar=False)
table = wsi.shapes["tiles"]
data = wsi.ds.tile_images(tile_key="tiles", transform=lambda tile: tile)
tiles = np.stack([np.asarray(data[k]["image"]) for k in range(len(data))])
columns = [f"prob_{name}" for name in model.classes]
np.savez("said.npz", tiles=tiles, said=table[columns].to_numpy(), labels=table["label"].to_numpy(str))
"""


def _write(network: TileClassifier, folder: Path) -> None:
    folder.mkdir()
    exports.write(network, LAZYSLIDE, folder, classes=CLASSES[: network.n_classes], microns_per_pixel=0.5)


def _opinionated() -> TileClassifier:
    torch.manual_seed(0)
    return with_temperature(network_with_opinions(draw_demo(n_tiles=27, tile_size_px=SIZE_PX, seed=3)), 1.7)


def _expected(network: torch.nn.Module, given: NDArray[np.generic]) -> NDArray[np.float64]:
    return probabilities_of(infer(network, given, compute=Compute(torch.device("cpu"), is_bf16=False), description=None))


def _ask(work: Path, kind: str, batch: str) -> dict[str, NDArray[np.generic]]:
    code = _ASK.format(kind=kind, batch=batch)
    done = subprocess.run([sys.executable, "-c", code], cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(np.load(work / "said.npz"))


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize("size_px", [SIZE_PX, 45])
def test_the_class_alone_says_what_the_model_says(tmp_path: Path, size_px: int) -> None:
    network = _opinionated()
    _write(network, tmp_path / "there")
    given = np.array(draw_demo(n_tiles=9, tile_size_px=size_px, seed=5).images)
    np.save(tmp_path / "given.npy", given)
    said = _ask(tmp_path, "TileModel", "torch.stack([model.get_transform()(tile) for tile in given])")
    expected = _expected(network, given)
    assert expected.std() > 0.01
    np.testing.assert_allclose(np.stack([said[f"prob_{name}"] for name in CLASSES], axis=1), expected, atol=1e-5)
    assert said["label"].tolist() == [CLASSES[k] for k in expected.argmax(axis=1)]


def test_a_model_of_features_says_what_it_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TileClassifier(n_classes=3, tile_size_px=0, backbone="features:12").eval()
    _write(network, tmp_path / "there")
    given = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    np.save(tmp_path / "given.npy", given)
    said = _ask(tmp_path, "FeatureModel", "given")
    np.testing.assert_allclose(np.stack([said[f"prob_{name}"] for name in "ABC"], axis=1), _expected(network, given), atol=1e-5)
    assert "feature_prediction(wsi, FeatureModel(), feature_key" in (tmp_path / "there" / "README.md").read_text()


@pytest.mark.usefixtures("small_network")
def test_tiles_that_were_scaled_already_are_refused(tmp_path: Path) -> None:
    _write(_opinionated(), tmp_path / "there")
    with pytest.raises(TypeError, match=r"tiles are torch\.float64; uint8 is needed: leave `transform` out"):
        exports.open_written(LAZYSLIDE, tmp_path / "there")(np.full((2, SIZE_PX, SIZE_PX, 3), 0.5))  # type: ignore[arg-type]
    readme = (tmp_path / "there" / "README.md").read_text()
    assert "tile_tissues(wsi, tile_px=32, mpp=0.5)" in readme
    assert json.loads((tmp_path / "there" / "model.json").read_text())["classes"] == list(CLASSES)


@pytest.mark.slow
@pytest.mark.usefixtures("small_network")
def test_lazyslide_itself_asks_the_model_of_a_slide(tmp_path: Path, real_data: Path) -> None:
    tried = [LAZYSLIDE_PYTHON, "-c", "import lazyslide"]
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("LazySlide is not here: install the group test-all, or name a Python that has it: HISTO_LAZYSLIDE_PYTHON")
    network = _opinionated()
    _write(network, tmp_path / "there")
    command = [LAZYSLIDE_PYTHON, "-c", _IN_LAZYSLIDE, str(real_data / "cmu-1-small-region.svs")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "said.npz")
    assert len(found["tiles"]) > 20
    expected = _expected(network, found["tiles"])
    assert expected.std() > 0.01
    np.testing.assert_allclose(found["said"], expected, atol=1e-5)
    assert found["labels"].tolist() == [CLASSES[k] for k in expected.argmax(axis=1)]
