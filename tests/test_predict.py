"""What `predict` writes of a model that may abstain, and what it says of one that can't."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.compute import Compute
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.predict import threshold_of, write_predictions
from histo_mlflow.pipeline.prediction_counts import PredictionCounts
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tiles.unlabelled import open_images
from tests.conftest import SIZE_PX, save_npz

pytestmark = pytest.mark.usefixtures("small_network")


def _model(abstain_below: float | None, *, epoch: int | None = None) -> Model:
    torch.manual_seed(0)
    facts = ModelFacts(
        tuple("ABC"), SIZE_PX, "f" * 64, is_synthetic=True, microns_per_pixel=0.5, abstain_below=abstain_below, epoch=epoch
    )
    return Model(TileClassifier(n_classes=3, tile_size_px=SIZE_PX).eval(), facts, "models:/three/1")


def test_the_column_says_where_the_probability_is_below_the_threshold(tmp_path: Path, tiny_tiles: TileSet) -> None:
    images, output = open_images(str(save_npz(tmp_path / "tiles.npz", tiny_tiles))), tmp_path / "out.csv"
    compute = Compute(torch.device("cpu"), is_bf16=False)
    write_predictions(_model(None), compute, images, output, counts=PredictionCounts(tuple("ABC"), None))
    plain = pd.read_csv(output)
    highest = plain[["prob_A", "prob_B", "prob_C"]].max(axis=1)
    threshold = float(np.median(highest))
    counts = PredictionCounts(tuple("ABC"), threshold_of(_model(threshold)))
    write_predictions(_model(threshold), compute, images, output, counts=counts)
    abstaining = pd.read_csv(output)
    assert abstaining["abstain"].tolist() == (highest < threshold).tolist()
    assert 0 < abstaining["abstain"].sum() < len(plain)
    assert abstaining.drop(columns="abstain").equals(plain)
    assert counts.by_class.tolist() == [(plain["label"] == name).sum() for name in "ABC"]
    assert counts.n_abstained == abstaining["abstain"].sum()
    assert counts.mean_confidence == pytest.approx(highest.mean())
    said = counts.describe()
    assert f"mean confidence {highest.mean():.3f}; abstained from {counts.n_abstained} (" in said
    most = plain["label"].value_counts()
    assert said.splitlines()[2].split() == [most.index[0], str(most.iloc[0]), f"{100 * most.iloc[0] / len(plain):.1f}", "%"]
    assert PredictionCounts(tuple("ABC"), None).describe() == "no image was predicted"


@pytest.mark.parametrize(
    ("epoch", "why"), [(3, "it is a checkpoint"), (None, "validation tiles show 99 % accuracy above none")]
)
def test_a_model_without_a_threshold_says_why(epoch: int | None, why: str) -> None:
    with pytest.raises(OptionError, match=f"no threshold to abstain by \\({why}\\)"):
        threshold_of(_model(None, epoch=epoch))
