import numpy as np
import pytest
import torch

from histo_mlflow.learning.grad_cam import grad_cam
from histo_mlflow.models.classifier import TileClassifier


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)


def _network(seed: int) -> TileClassifier:
    torch.manual_seed(seed)
    network = TileClassifier(n_classes=4, tile_size_px=96)
    for module in network.modules():  # residual branches start at zero: wake them, or the maps would be the stem's alone
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = None  # the statistics of all tiles it has seen, so that one look is enough
    with torch.no_grad():
        network.train()(torch.randint(0, 256, (8, 96, 96, 3), dtype=torch.uint8))
    return network.eval()


def test_maps_have_the_form_they_promise(tiles: np.ndarray) -> None:
    maps = grad_cam(_network(0), tiles, np.array([0, 1, 2]), device=torch.device("cpu"))
    assert maps.shape == (3, 96, 96)
    assert maps.min() >= 0
    assert maps.max() == pytest.approx(1, abs=0.35), "enlarging smooths the one cell of 1"


def test_random_weights_change_the_map(tiles: np.ndarray) -> None:
    """The sanity check of Adebayo et al. 2018: a map that other weights leave as it is shows the tile, not the network."""
    classes = np.array([0, 1, 2])
    first, again, other = (grad_cam(_network(seed), tiles, classes, device=torch.device("cpu")) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    for one, two in zip(first, other, strict=True):
        assert np.abs(one - two).mean() > 0.05


def test_the_map_follows_the_class(tiles: np.ndarray) -> None:
    network = _network(0)
    one, two = (grad_cam(network, tiles, np.full(3, k), device=torch.device("cpu")) for k in (0, 3))
    assert np.abs(one - two).mean() > 0.02


def test_the_map_is_weights_times_maps_by_hand(tiles: np.ndarray) -> None:
    """Behind global pooling lies one linear layer, so that the gradient of a logit is its row over the number of cells."""
    network = _network(0)
    with torch.no_grad():
        pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2) * network.scale + network.shift
        features = network.backbone.features(pixels)
        row = network.backbone.classifier[1].weight[2]
        evidence = torch.einsum("nchw,c->nhw", features, row).relu()
    expected = evidence / evidence.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    enlarged = torch.nn.functional.interpolate(expected[:, None], (96, 96), mode="bilinear", align_corners=False)[:, 0]
    found = grad_cam(network, tiles, np.full(3, 2), device=torch.device("cpu"))
    assert found == pytest.approx(enlarged.numpy(), abs=1e-5)


def test_nothing_to_map() -> None:
    empty = np.zeros((0, 96, 96, 3), np.uint8)
    assert grad_cam(_network(0), empty, np.zeros(0, np.int64), device=torch.device("cpu")).shape == (0, 96, 96)
