"""The classifier: uint8 tiles in, logits out, preprocessing inside; knows nothing of training."""

import copy
from itertools import pairwise

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from histo_mlflow.models.backbone import BICUBIC
from histo_mlflow.models.backbones import DEFAULT_BACKBONE, find_backbone
from histo_mlflow.models.options import n_features_of
from histo_mlflow.served_model.folding import fold_graph


class TileClassifier(nn.Module):
    """A backbone that takes tiles as they are stored, or features of them which were made before.

    Attributes:
        backbone_name: Which one, as `find_backbone` knows it.
        backbone: From normalised pixels ``(n_tiles, 3, height, width)``, or from features ``(n_tiles, n_features)``, to logits.
        tile_size_px: Edge length to which every tile is brought before the convolutions; 0 where tiles come as features.
        temperature: By which logits are divided, a scalar; 1 unless the network was calibrated.
    """

    scale: Tensor
    shift: Tensor
    temperature: Tensor

    def __init__(self, *, n_classes: int, tile_size_px: int, backbone: str = DEFAULT_BACKBONE) -> None:
        super().__init__()
        found = find_backbone(backbone)
        self.backbone_name = backbone
        self.tile_size_px = tile_size_px
        self.backbone = found.build(n_classes, tile_size_px)
        self._interpolation = found.pixels.interpolation
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.pixels.mean, found.pixels.std))
        # One multiply-add instead of /255, -mean, /std; not persistent, because they are facts and not weights.
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)
        # Not persistent either: weights from which training may go on are never calibrated.
        self.register_buffer("temperature", torch.ones(()), persistent=False)

    @property
    def takes_features(self) -> bool:
        """Whether tiles come as features."""
        return n_features_of(self.backbone_name) > 0

    @property
    def head(self) -> nn.Linear:
        """The last linear layer, from features to logits."""
        return self.backbone.get_submodule(find_backbone(self.backbone_name).head)  # type: ignore[return-value]

    @property
    def n_classes(self) -> int:
        """Number of logits."""
        return self.head.out_features

    @property
    def n_features(self) -> int:
        """Width of what the head sees."""
        return self.head.in_features

    def describe_preprocessing(self) -> str:
        """Return in words what is done to tiles before the backbone sees them."""
        if self.takes_features:
            return f"features ({self.n_features} for each tile) as they are given"
        pixels = find_backbone(self.backbone_name).pixels
        return (
            f"uint8 RGB (n, height, width, 3) -> {pixels.interpolation} resize with antialiasing to tile_size_px -> / 255 -> "
            f"per channel - {pixels.mean}, / {pixels.std}; inside the network"
        )

    @property
    def pooling(self) -> nn.Module | None:
        """The module whose input are the last feature maps, or None where the backbone has none."""
        name = find_backbone(self.backbone_name).pooling
        return None if name is None else self.backbone.get_submodule(name)

    def forward(self, tiles: Tensor) -> Tensor:
        """Return logits ``(n_tiles, n_classes)``, float.

        Args:
            tiles: ``(n_tiles, height, width, 3)`` uint8 RGB; other sizes than `tile_size_px` are resized. Or features,
                ``(n_tiles, n_features)`` float32.
        """
        if self.takes_features:
            torch._assert_tensor_metadata(tiles, dtype=torch.float32)
            of_features: Tensor = self.backbone(tiles)
            return of_features / self.temperature
        # Floats in [0, 1] would be taken for nearly black tiles. The assertion becomes part of an exported graph.
        torch._assert_tensor_metadata(tiles, dtype=torch.uint8)
        pixels = tiles.permute(0, 3, 1, 2)  # of a contiguous batch this is channels_last, with nothing copied
        size = (self.tile_size_px, self.tile_size_px)
        # In an export height and width are symbols: resizing always (an identity for equal sizes) avoids a guard on them.
        if torch.compiler.is_exporting() or tuple(pixels.shape[2:]) != size:
            pixels = functional.interpolate(
                pixels * torch.ones_like(self.scale), size, mode=self._interpolation, antialias=True
            )
            if self._interpolation == BICUBIC:  # it overshoots at edges
                pixels = pixels.clamp(0, 255)
        logits: Tensor = self.backbone(pixels * self.scale + self.shift)
        return logits / self.temperature

    def features(self, tiles: Tensor) -> Tensor:
        """Return what the head sees of `tiles` ``(n_tiles, height, width, 3)`` uint8: ``(n_tiles, n_features)`` float.

        In evaluation mode the head's matrix and bias make exactly the logits of them.
        """
        seen: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        try:
            self(tiles)
        finally:
            hook.remove()
        return seen[0]


def with_temperature(network: TileClassifier, temperature: float) -> TileClassifier:
    """Return a copy whose logits are divided by `temperature`."""
    calibrated = copy.deepcopy(network)
    calibrated.temperature.fill_(temperature)
    return calibrated


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy whose convolutions do the work of the batch norms behind them: the same logits to rounding, faster.

    `network` must be in evaluation mode. What has no such pairs is returned as it is.
    """
    if isinstance(network, fx.GraphModule):
        return fold_graph(network)
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        return network
    folded = copy.deepcopy(network)
    for module in folded.modules():
        children = list(module.named_children())
        for (name, convolution), (next_name, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, nn.utils.fuse_conv_bn_eval(convolution, norm))
                setattr(module, next_name, _beside_the_norm(norm))
    return folded


def _beside_the_norm(norm: nn.Module) -> nn.Module:
    """Return what else a batch norm does: those of timm hold the activation that follows."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()
