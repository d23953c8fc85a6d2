"""An EfficientNet with each kind of layer that B3 has, and a tenth of them: enough wherever B3 itself is not the point.

It is built, trained, stored and exported by the product's own code, in a fraction of the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.efficientnet import EfficientNet, MBConvConfig

from histo_mlflow.models.backbones import find_backbone
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.tiles.tile_set import TileSet

SMALL_NETWORK = "TESTS_SMALL_NETWORK"
"""Variable by which processes that a test starts get it too (tests/uninstalled/sitecustomize.py)."""

# Widening, kernel, stride, channels in and out, blocks: one without widening, one with a residual branch, one wide kernel.
_BLOCKS = ((1, 3, 1, 8, 8, 1), (6, 3, 2, 8, 16, 2), (6, 5, 2, 16, 24, 1))


def get_small_model(name: str, *, weights: None, num_classes: int, **more: int) -> nn.Module:
    """Take the place of torchvision's `get_model`, for its EfficientNet-B3 only."""
    if name != "efficientnet_b3":
        return get_model(name, weights=weights, num_classes=num_classes, **more)
    blocks = [MBConvConfig(*block, width_mult=1, depth_mult=1) for block in _BLOCKS]
    return EfficientNet(blocks, dropout=0.3, num_classes=num_classes)


def network_with_opinions(tiles: TileSet, n_classes: int = 9) -> TileClassifier:
    """Return an untrained network that says something else of each tile: branches at work, statistics of these tiles."""
    network = TileClassifier(n_classes=n_classes, tile_size_px=tiles.tile_size_px)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
            module.momentum = None
    torch.nn.init.normal_(network.backbone.classifier[1].weight, std=0.3)
    with torch.no_grad():
        network.train()(torch.from_numpy(np.array(tiles.images)))
    return network.eval()


@contextmanager
def using_small_network() -> Iterator[None]:
    """Let every `TileClassifier` that is made meanwhile be small, here and in processes that are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("histo_mlflow.models.backbones.torchvision.get_model", get_small_model)
        patch.setenv(SMALL_NETWORK, "true")
        find_backbone.cache_clear()
        yield
    find_backbone.cache_clear()
