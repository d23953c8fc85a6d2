"""Each export is run by the real runtime and says what the model says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from histo_mlflow.models import exports
from histo_mlflow.models.classifier import TileClassifier, with_temperature
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.options import FORMATS, OPENVINO_INT8
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.decisions import register_model
from histo_mlflow.tracking.logged_models import log_model
from histo_mlflow.tracking.registry import VersionFacts
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store
from tests.conftest import Histo, copy_store
from tests.small_network import network_with_opinions, using_small_network

SIZE_PX = 32

_IN_WSINFER = """
import json
import numpy as np
import torch
from PIL import Image
from wsinfer_zoo.client import ModelConfiguration
from wsinfer.modellib.models import LocalModelTorchScript, get_pretrained_torch_module
from wsinfer.modellib.transforms import make_compose_from_transform_config

with open("exported-wsinfer/config.json") as file:
    config = ModelConfiguration.from_dict(json.load(file))
model = LocalModelTorchScript(config=config, model_path="exported-wsinfer/torchscript_model.pt")
network = get_pretrained_torch_module(model).eval()
transform = make_compose_from_transform_config(model.config.transform)
with torch.inference_mode():
    said = network(torch.stack([transform(Image.fromarray(tile)) for tile in np.load("tiles.npy")]))
np.save("said.npy", said.numpy())
"""


@pytest.fixture(scope="module")
def tiles() -> TileSet:
    return draw_demo(n_tiles=27, tile_size_px=SIZE_PX, seed=3)


@pytest.fixture(scope="module", params=["small", pytest.param("EfficientNet-B3", marks=pytest.mark.slow)])
def store_template(
    request: pytest.FixtureRequest, store_template: Path, tiles: TileSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A store in which a network is registered that tells tiles apart and is calibrated; every test has its own copy of it."""
    folder = tmp_path_factory.mktemp("registered")
    copy_store(store_template, folder)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    with using_small_network() if request.param == "small" else nullcontext():
        _register(tiles)
        yield folder / "mlflow.db"


@pytest.fixture
def registered(work: Path, tiles: TileSet) -> TileSet:
    """The tiles that the registered network tells apart, which `tiles.npz` holds too."""
    np.savez(work / "tiles.npz", data=tiles.images, labels=tiles.labels)
    return tiles


def _register(tiles: TileSet, microns_per_pixel: float | None = 0.5) -> None:
    torch.manual_seed(0)
    network = with_temperature(network_with_opinions(tiles), 1.7)
    facts = ModelFacts(
        tiles.classes, SIZE_PX, "0" * 64, is_synthetic=False, microns_per_pixel=microns_per_pixel, selected="by hand",
        temperature=1.7, is_calibrated=True,
    )  # fmt: skip
    store = open_store()
    with open_run(store, "train") as run:
        uri = log_model(run, network, facts, "a card", step=1)
    register_model(store, uri, "histo-b3", VersionFacts(run.id, tags={"source_run": run.id}))


def _expected(images: NDArray[np.uint8]) -> pd.DataFrame:
    return mlflow.pyfunc.load_model("models:/histo-b3/Production").predict(images)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    return torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()


@pytest.mark.parametrize("name", [name for name in FORMATS if name != OPENVINO_INT8])
def test_an_export_says_what_the_model_says(name: str, registered: TileSet, histo_here: Histo) -> None:
    done = histo_here("export", "--to", name, "--data", "tiles.npz", "--output", "there")
    assert done.returncode == 0, done.stderr
    facts = json.loads(Path("there/export.json").read_text())
    assert facts["largest_probability_difference"] < 1e-4
    assert facts["compared_on"]["n_tiles"] == facts["labels_equal"] == 27
    expected = _expected(registered.images[:5]).filter(like="prob_").to_numpy()
    assert expected.std() > 0.01, "a model that says the same of everything would pass whatever the export says"
    found = _softmax(exports.open_written(name, Path("there"))(np.ascontiguousarray(registered.images[:5])))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    again = histo_here("export", "--to", name, "--data", "tiles.npz", "--output", "there")
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_an_export_of_mlflow_run_is_kept_with_its_run(
    registered: TileSet, histo_here: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that is written lies in a clone that nobody will look into."""
    store = open_store()
    begun = store.client.create_run(store.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", begun)
    done = histo_here("export", "--to", "torchscript", "--data", "tiles.npz")
    assert done.returncode == 0, done.stderr
    assert f"{Path('exported-torchscript').absolute()}: all 27 labels equal" in done.stdout
    assert f"kept with run {begun} too" in done.stdout
    kept = {item.path for item in store.client.list_artifacts(begun, "exported-torchscript")}
    assert kept == {f"exported-torchscript/{file.name}" for file in Path("exported-torchscript").iterdir()}


def test_an_export_that_says_something_else_is_not_kept(
    registered: TileSet, histo_here: Histo, monkeypatch: pytest.MonkeyPatch, work: Path
) -> None:
    written = exports.write

    def write_other(network: TileClassifier, *arguments: Any, **options: Any) -> None:
        written(with_temperature(network, 0.5), *arguments, **options)

    monkeypatch.setattr(exports, "write", write_other)
    before = set(work.iterdir())
    done = histo_here("export", "--to", "torchscript", "--data", "tiles.npz")
    assert done.returncode == 1
    assert "probabilities by up to" in done.stderr
    assert {path.name for path in set(work.iterdir()) - before} <= {"cache"}


def test_wsinfers_folder_passes_its_schema_and_runs_on_a_tile(registered: TileSet, histo_here: Histo) -> None:
    zoo = pytest.importorskip("wsinfer_zoo.client")
    assert histo_here("export", "--to", "wsinfer", "--data", "tiles.npz").returncode == 0
    folder = Path("exported-wsinfer")
    model = zoo.Model(
        config=zoo.ModelConfiguration.from_dict(json.loads((folder / "config.json").read_text())),
        model_path=str(folder / "torchscript_model.pt"),
    )
    assert tuple(model.config.class_names) == registered.classes
    assert (model.config.patch_size_pixels, model.config.spacing_um_px) == (SIZE_PX, 0.5)
    from torchvision import transforms

    compose = transforms.Compose([getattr(transforms, step.name)(**(step.arguments or {})) for step in model.config.transform])
    tile = compose(Image.fromarray(registered.images[4]))[None]
    with torch.inference_mode():
        found = _softmax(torch.jit.load(model.model_path)(tile).numpy())
    np.testing.assert_allclose(found, _expected(registered.images[4:5]).filter(like="prob_").to_numpy(), atol=1e-4)


@pytest.mark.slow
def test_wsinfer_itself_reads_the_folder_and_says_the_same(registered: TileSet, histo_here: Histo) -> None:
    """WSInfer needs an older zarr than we do, so it has a Python of its own."""
    python = os.environ.get("HISTO_WSINFER_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import wsinfer"], capture_output=True, check=False).returncode:
        pytest.skip("WSInfer is not here: name a Python that has it: HISTO_WSINFER_PYTHON")
    assert histo_here("export", "--to", "wsinfer", "--data", "tiles.npz").returncode == 0
    images = registered.images[:9]
    np.save("tiles.npy", images)
    done = subprocess.run([python, "-c", _IN_WSINFER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = _expected(images).filter(like="prob_").to_numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(_softmax(np.load("said.npy")), expected, atol=1e-4)


@pytest.mark.usefixtures("small_network")
def test_wsinfer_is_told_no_scale_that_nobody_knows(registered: TileSet, histo_here: Histo) -> None:
    _register(registered, microns_per_pixel=None)
    asked = ["export", "models:/histo-b3/2", "--to", "wsinfer", "--data", "tiles.npz"]
    done = histo_here(*asked)
    assert done.returncode == 2
    assert "models:/histo-b3/2 does not know that of its own; give the microns_per_pixel of a tile of 32 px" in done.stderr
    assert not Path("exported-wsinfer").exists()
    done = histo_here(*asked, "--microns-per-pixel", "0.25")
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("exported-wsinfer/config.json").read_text())["spacing_um_px"] == 0.25


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_predict_says_the_same_with_another_runtime(runtime: str, registered: TileSet, histo_here: Histo) -> None:
    assert histo_here("predict", "--data", "tiles.npz").returncode == 0
    done = histo_here("predict", "--data", "tiles.npz", "--runtime", runtime, "--output", "other.csv")
    assert done.returncode == 0, done.stderr
    torch_table, other = pd.read_csv("predictions.csv"), pd.read_csv("other.csv")
    assert torch_table["label"].equals(other["label"])
    np.testing.assert_allclose(torch_table.filter(like="prob_"), other.filter(like="prob_"), atol=1e-4)


def test_what_is_missing_is_named(registered: TileSet, histo_here: Histo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_spec("onnxruntime")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    done = histo_here("export", "--to", "onnx", "--data", "tiles.npz")
    assert done.returncode == 2
    assert "onnxruntime" in done.stderr
    assert "pip install" in done.stderr
