import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.infer import cross_entropy_of, infer, probabilities_of
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.tiles.tile_set import TileSet

CPU = Compute(torch.device("cpu"), is_bf16=False)


@pytest.fixture(scope="module")
def network() -> TileClassifier:
    seed_everything(0)
    return TileClassifier(n_classes=9, tile_size_px=32).eval()


def test_batch_size_and_order_change_nothing(network: TileClassifier, tiny_tiles: TileSet) -> None:
    whole = infer(network, tiny_tiles.images, compute=CPU, batch_size=54)
    rows = np.random.default_rng(0).permutation(54)
    for batch_size in (1, 7, 54):
        shuffled = infer(network, tiny_tiles.images, rows=rows, compute=CPU, batch_size=batch_size)
        np.testing.assert_allclose(shuffled, whole[rows], rtol=1e-4, atol=1e-5)


def test_bf16_stays_near_fp32(network: TileClassifier, tiny_tiles: TileSet) -> None:
    exact = probabilities_of(infer(network, tiny_tiles.images, compute=CPU))
    rough = probabilities_of(infer(network, tiny_tiles.images, compute=Compute(CPU.device, is_bf16=True)))
    assert np.abs(exact - rough).max() < 0.05
    assert np.abs(exact - rough).max() > 0


def test_loss_and_probabilities_are_the_textbook_ones() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 30, (200, 9)).astype(np.float32), rng.integers(0, 9, 200)
    probabilities = probabilities_of(logits)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    assert cross_entropy_of(logits[:, :3] / 30, labels % 3) == pytest.approx(
        log_loss(labels % 3, probabilities_of(logits[:, :3] / 30), labels=range(3))
    )
