"""A network that looks at each tile from several sides; knows nothing of what is made of its answers."""

import torch
from torch import Tensor, nn

from histo_mlflow.models.features import ALL_VIEWS


class SymmetricNetwork(nn.Module):
    """A network asked about symmetries of each tile, of which tissue has no preferred one."""

    def __init__(self, network: nn.Module, n_views: int) -> None:
        """Take the first `n_views` of: as stored, the three other turns, the mirror image, its other turns."""
        super().__init__()
        self.network = network
        self.views = ALL_VIEWS[:n_views]
        self.tile_size_px: int = getattr(network, "tile_size_px", 1)
        self.training = False  # an exported graph can only be in evaluation mode, and takes no call of `eval`

    def forward(self, tiles: Tensor) -> Tensor:
        """Return logits ``(n_tiles, n_views, n_classes)`` of ``(n_tiles, size, size, 3)`` uint8, as stored first."""
        return torch.stack([self.network(view.of(tiles).contiguous()) for view in self.views], dim=1)
