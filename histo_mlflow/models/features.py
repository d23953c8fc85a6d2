"""What a frozen backbone makes of tiles, for a head to be fitted on; knows nothing of files or of how a head is fitted."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from histo_mlflow.models.backbones import find_backbone
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.weight_files import checked_sha256


@dataclass(frozen=True)
class View:
    """One of the eight symmetries of a square: mirrored left-right or not, then turned; no pixel value changes."""

    quarter_turns: int = 0
    is_mirrored: bool = False

    def of(self, tiles: Tensor) -> Tensor:
        """Return the view of tiles ``(n_tiles, size, size, 3)``."""
        tiles = tiles.flip(2) if self.is_mirrored else tiles
        return tiles.rot90(self.quarter_turns, (1, 2)) if self.quarter_turns else tiles

    def __str__(self) -> str:
        return f"{'mirrored, ' if self.is_mirrored else ''}turned by {90 * self.quarter_turns} degrees"


AS_STORED = View()
ALL_VIEWS = tuple(View(quarter_turns, is_mirrored) for is_mirrored in (False, True) for quarter_turns in range(4))


class FeatureNetwork(nn.Module):
    """A `TileClassifier` up to its head, in evaluation mode: a view of uint8 tiles in, features out."""

    def __init__(self, network: TileClassifier, view: View = AS_STORED) -> None:
        super().__init__()
        self.network = network
        self.view = view
        self.tile_size_px = network.tile_size_px
        self.eval()

    def forward(self, tiles: Tensor) -> Tensor:
        """Return ``(n_tiles, n_features)`` of ``(n_tiles, height, width, 3)`` uint8."""
        return self.network.features(self.view.of(tiles))


def digest_backbone(network: TileClassifier) -> str:
    """Return a SHA-256 (hex) of all weights and statistics but the head's: names, shapes, types and values.

    Of a backbone that is a file, the file belongs to it: what it computes stands nowhere else.
    """
    known = find_backbone(network.backbone_name)
    head, digest = f"{known.head}.", hashlib.sha256()
    if known.comes_with_weights and known.weights is not None:
        digest.update(checked_sha256(known.weights.fetch()).encode())
    add_weights(digest, {name: each for name, each in network.backbone.state_dict().items() if not name.startswith(head)})
    return digest.hexdigest()


def add_weights(digest: "hashlib._Hash", weights: Mapping[str, Tensor]) -> None:
    """Add names, shapes, types and values of all weights and statistics to a digest."""
    for name, tensor in sorted(weights.items()):
        if tensor.is_floating_point():  # how many batches a norm has seen changes nothing
            digest.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def set_head(network: TileClassifier, weights: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    """Give the head a matrix ``(n_classes, n_features)`` and a bias ``(n_classes,)``, in place."""
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weights))
        network.head.bias.copy_(torch.from_numpy(bias))
