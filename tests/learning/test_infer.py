from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from histo_mlflow.learning.batches import load_ahead
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.infer import choose_batch_size, cross_entropy_of, infer, infer_stream, probabilities_of
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


def test_a_stream_of_blocks_of_any_size_is_told_what_an_array_is(network: TileClassifier, tiny_tiles: TileSet) -> None:
    blocks = (np.array(tiny_tiles.images[start:stop]) for start, stop in ((0, 1), (1, 30), (30, 54)))
    said = list(infer_stream(network, load_ahead(blocks, CPU.device), CPU))
    assert [len(each) for each in said] == [1, 29, 24]
    np.testing.assert_allclose(torch.cat(said).numpy(), infer(network, tiny_tiles.images, compute=CPU), rtol=1e-4, atol=1e-5)


def test_an_error_of_the_stream_reaches_who_infers(network: TileClassifier, tiny_tiles: TileSet) -> None:
    def blocks() -> Iterator[NDArray[np.uint8]]:
        yield np.array(tiny_tiles.images[:2])
        raise OSError("the slide is gone")

    coming = infer_stream(network, load_ahead(blocks(), CPU.device), CPU)
    assert len(next(coming)) == 2
    with pytest.raises(OSError, match="the slide is gone"):
        next(coming)


def test_batches_are_smaller_for_larger_tiles_on_a_cpu(network: TileClassifier) -> None:
    sizes = [choose_batch_size(network, (px, px, 3), CPU.device) for px in (32, 224, 512)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] == 41


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
