"""Networks of five families go the whole way beside a whole EfficientNet-B3 in Production, and are served."""

import json
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES
from histo_mlflow.tracking.decisions import register_model
from histo_mlflow.tracking.logged_models import log_model
from histo_mlflow.tracking.registry import VersionFacts
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store
from tests.conftest import SIZE_PX, Histo, copy_store
from tests.servers import model_server
from tests.test_backbone_story import go_the_whole_way, save_sets

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store_template(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with torchvision's EfficientNet-B3 in Production, from random weights; every test has its own copy of it."""
    folder = tmp_path_factory.mktemp("b3")
    copy_store(store_template, folder)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    torch.manual_seed(0)
    network = TileClassifier(n_classes=9, tile_size_px=SIZE_PX).eval()
    assert sum(tensor.numel() for tensor in network.parameters()) > 10_000_000
    store = open_store()
    with open_run(store, "train") as run:
        facts = ModelFacts(COLORECTAL_CLASSES, SIZE_PX, "0" * 64, is_synthetic=True)
        uri = log_model(run, network, facts, "a card", step=1)
    register_model(store, uri, "histo-b3", VersionFacts(run.id, tags={"source_run": run.id}))
    return folder / "mlflow.db"


@pytest.mark.parametrize(
    "name",
    [
        "timm:resnet10t", "timm:convnext_atto", "timm:vit_tiny_patch16_224", "timm:efficientnet_lite0",
        "timm:mobilenetv3_small_050", "lite0",
    ],
)  # fmt: skip
def test_it_is_judged_beside_a_whole_b3_and_served(name: str, work: Path, histo_here: Histo) -> None:
    save_sets(work)
    expected = go_the_whole_way(name, work, histo_here)
    tiles = np.load("test.npz")["data"]
    with model_server("models:/histo-b3/2", work) as address:
        asked = urllib.request.Request(
            f"{address}/invocations",
            json.dumps({"inputs": tiles[:3].tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            said = pd.DataFrame(json.load(answer)["predictions"])
    assert said["label"].tolist() == expected["label"][:3].tolist()
    # Another process has other threads, which add up in another order.
    np.testing.assert_allclose(said.filter(like="prob_"), expected.filter(like="prob_")[:3], atol=1e-4)
