"""A network that looks at each tile from all eight sides; knows nothing of what is made of its answers."""

import torch
from torch import Tensor, nn

from histo_mlflow.models.features import ALL_VIEWS


class SymmetricNetwork(nn.Module):
    """A network asked about the eight symmetries of each tile, of which tissue has no preferred one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.tile_size_px: int = getattr(network, "tile_size_px", 1)
        self.eval()

    def forward(self, tiles: Tensor) -> Tensor:
        """Return logits ``(n_tiles, 8, n_classes)`` of ``(n_tiles, size, size, 3)`` uint8, as stored first."""
        return torch.stack([self.network(view.of(tiles).contiguous()) for view in ALL_VIEWS], dim=1)
