"""The classifier: uint8 tiles in, logits out, preprocessing inside; knows nothing of training."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import efficientnet_b3

ARCHITECTURE = "efficientnet_b3"

# ImageNet's channel means and standard deviations, as torchvision's weights of this network were trained with.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class TileClassifier(nn.Module):
    """torchvision's EfficientNet-B3 that takes tiles as they are stored.

    Attributes:
        tile_size_px: Edge length to which every tile is brought before the convolutions.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, *, n_classes: int, tile_size_px: int) -> None:
        super().__init__()
        self.tile_size_px = tile_size_px
        self.backbone = efficientnet_b3(weights=None, num_classes=n_classes)
        mean, std = torch.tensor(_MEAN).view(3, 1, 1), torch.tensor(_STD).view(3, 1, 1)
        # One multiply-add instead of /255, -mean, /std; not persistent, for they are facts and not weights.
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    @property
    def n_classes(self) -> int:
        """Number of logits."""
        return int(self.backbone.classifier[1].out_features)

    def forward(self, tiles: Tensor) -> Tensor:
        """Return logits ``(n_tiles, n_classes)``, float.

        Args:
            tiles: ``(n_tiles, height, width, 3)`` uint8 RGB; other sizes than `tile_size_px` are resized.
        """
        # Floats in [0, 1] would be taken for nearly black tiles. The assertion becomes part of an exported graph.
        torch._assert_tensor_metadata(tiles, dtype=torch.uint8)
        pixels = tiles.permute(0, 3, 1, 2)  # of a contiguous batch this is channels_last, with nothing copied
        size = (self.tile_size_px, self.tile_size_px)
        # In an export height and width are symbols: resizing always (an identity for equal sizes) avoids a guard on them.
        if torch.compiler.is_exporting() or tuple(pixels.shape[2:]) != size:
            pixels = functional.interpolate(pixels * torch.ones_like(self.scale), size, mode="bilinear", antialias=True)
        logits: Tensor = self.backbone(pixels * self.scale + self.shift)
        return logits
