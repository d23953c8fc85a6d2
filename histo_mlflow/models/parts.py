"""A classifier in two parts, its backbone and its head, for models that may not hold the first; knows no files."""

import copy

from torch import Tensor, nn

from histo_mlflow.models.backbones import find_backbone
from histo_mlflow.models.classifier import TileClassifier


class Head(nn.Module):
    """From features ``(n_tiles, n_features)`` to logits, divided by a temperature."""

    temperature: Tensor

    def __init__(self, linear: nn.Module, temperature: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("temperature", temperature, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(n_tiles, n_classes)``."""
        logits: Tensor = self.linear(features)
        return logits / self.temperature


class Joined(nn.Module):
    """The two parts together again: from uint8 tiles to logits."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, tiles: Tensor) -> Tensor:
        """Return logits ``(n_tiles, n_classes)``."""
        logits: Tensor = self.head(self.encoder(tiles))
        return logits


def split_at_head(network: TileClassifier) -> tuple[TileClassifier, Head]:
    """Return copies of the backbone, from uint8 tiles to features, and of the head behind it."""
    encoder = copy.deepcopy(network)
    name = find_backbone(network.backbone_name).head
    head = Head(encoder.backbone.get_submodule(name), encoder.temperature.clone())
    encoder.backbone.set_submodule(name, nn.Identity())
    encoder.temperature.fill_(1)
    return encoder, head


def whole_tensors(encoder: nn.Module, head: nn.Module, backbone: str) -> dict[str, Tensor]:
    """Return the tensors of both parts, exported or not, under the names that they have in a `TileClassifier`."""
    name = find_backbone(backbone).head
    own = {f"backbone.{name}.{part}": head.get_parameter(f"linear.{part}") for part in ("weight", "bias")}
    return {**encoder.state_dict(), **{each: tensor.detach() for each, tensor in own.items()}}
