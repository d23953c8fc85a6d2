"""The exported EfficientNet-B3 and the loader that travels with it."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from histo_mlflow import served_model
from histo_mlflow.learning.compute import seed_everything
from histo_mlflow.learning.network import TileClassifier
from histo_mlflow.tracking.model_flavor import ModelFacts, read_facts, save_model

FACTS = ModelFacts(tuple("abcdefghi"), 32, 0.5, "EfficientNet-B3", "inside", "random", "demo", "f" * 64, True, "epoch 1")


@pytest.fixture(scope="module")
def network() -> TileClassifier:
    seed_everything(0)
    return TileClassifier(n_classes=9, tile_size_px=32).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, network: TileClassifier) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    save_model(str(folder), Model(), network=network, facts=FACTS)
    return folder


@pytest.fixture(scope="module")
def exported(saved: Path) -> torch.nn.Module:
    return mlflow.pytorch.load_model(str(saved))


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (2, 32, 32, 3), (7, 224, 224, 3), (3, 28, 28, 3), (2, 40, 56, 3)])
def test_exported_graph_equals_the_network_for_any_number_and_size(
    network: TileClassifier, exported: torch.nn.Module, shape: tuple[int, ...]
) -> None:
    tiles = torch.randint(0, 256, shape, dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(exported(tiles), network(tiles), rtol=1e-4, atol=1e-4)


def test_exported_graph_can_be_moved_to_another_device(saved: Path) -> None:
    """The meta device stands for any other: whatever stayed behind on the CPU would make the call fail."""
    moved = mlflow.pytorch.load_model(str(saved)).to("meta")
    tensors = [*moved.parameters(), *moved.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved(torch.zeros((3, 40, 40, 3), dtype=torch.uint8, device="meta")).shape == (3, 9)


def test_export_leaves_the_network_as_it_was(network: TileClassifier, saved: Path) -> None:
    assert saved.exists()
    assert network.backbone.features[0][0].weight.requires_grad
    assert next(network.parameters()).device.type == "cpu"


def test_answers_with_a_table(saved: Path, exported: torch.nn.Module) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (130, 32, 32, 3), dtype=np.uint8)  # more than one batch
    table = mlflow.pyfunc.load_model(str(saved)).predict(tiles)
    assert list(table.columns) == ["label", *(f"prob_{name}" for name in FACTS.classes)]
    with torch.inference_mode():
        expected = torch.softmax(exported(torch.from_numpy(tiles)).double(), dim=1).numpy()
    np.testing.assert_allclose(table.iloc[:, 1:].to_numpy(), expected, atol=1e-5)
    assert table["label"].tolist() == [FACTS.classes[k] for k in expected.argmax(axis=1)]
    assert table.iloc[:, 1:].sum(axis=1).to_numpy() == pytest.approx(1)


@pytest.mark.parametrize(
    "tiles",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 32, 32, 3), np.float64),
        np.zeros((2, 32, 32, 3), np.int64),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 4), np.uint8),
    ],
    ids=["float32", "float64", "int64", "one tile without batch", "four channels"],
)
def test_other_types_and_shapes_are_refused(saved: Path, tiles: np.ndarray) -> None:
    with pytest.raises(MlflowException):
        mlflow.pyfunc.load_model(str(saved)).predict(tiles)
    with pytest.raises(MlflowException, match=r"tiles (are|have)"):
        served_model._load_pyfunc(str(saved / "data")).predict(tiles)


def test_no_tiles_no_rows(saved: Path) -> None:
    table = served_model._load_pyfunc(str(saved / "data")).predict(np.zeros((0, 32, 32, 3), np.uint8))
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 0


def test_two_models_with_other_loaders_share_no_code(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version of the loader, in the same process: each model must answer with its own."""
    source = tmp_path / "served_model" / "__init__.py"
    source.parent.mkdir()
    source.write_text(Path(served_model.__file__).read_text().replace('f"prob_{name}"', 'f"p_{name}"'))
    monkeypatch.setattr(served_model, "__file__", str(source))
    small = torch.nn.Module()
    small.forward = lambda tiles: (tiles * torch.ones(1)).mean(dim=(1, 2))  # type: ignore[method-assign]
    save_model(str(tmp_path / "later"), Model(), network=small, facts=replace(FACTS, classes=("x", "y", "z")))

    tiles = np.zeros((1, 8, 8, 3), np.uint8)
    first, second = (mlflow.pyfunc.load_model(str(path)) for path in (saved, tmp_path / "later"))
    assert list(second.predict(tiles).columns) == ["label", "p_x", "p_y", "p_z"]
    assert list(first.predict(tiles).columns)[1] == "prob_a"
    assert len([name for name in sys.modules if name.startswith("histo_served_model_")]) >= 2


def test_a_changed_weight_file_is_refused(saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    with (copy / "data" / "model.pt2").open("ab") as file:
        file.write(b"x")
    with pytest.raises(MlflowException, match="not the file that was logged"):
        mlflow.pyfunc.load_model(str(copy))


def test_folder_holds_facts_and_nothing_that_unpickles(saved: Path) -> None:
    assert read_facts(saved) == FACTS
    stored = json.loads((saved / "data" / "model.json").read_text())
    assert len(stored["weights_sha256"]) == 64
    files = {path.name for path in saved.rglob("*") if path.is_file()}
    assert files == {"MLmodel", "__init__.py", "model.pt2", "model.json", "requirements.txt", "conda.yaml", "python_env.yaml"}
    assert {line.split("==")[0] for line in (saved / "requirements.txt").read_text().split()} == {
        "mlflow", "torch", "numpy", "pandas",
    }  # fmt: skip
