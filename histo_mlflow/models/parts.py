"""A classifier in two parts, its backbone and its head, for models that may not hold the first; knows no files."""

import copy

from torch import Tensor, nn

from histo_mlflow.models.backbones import find_backbone
from histo_mlflow.models.classifier import TileClassifier


class Head(nn.Module):
    """From features ``(n_tiles, n_features)`` to logits, divided by a temperature."""

    temperature: Tensor

    def __init__(self, linear: nn.Linear, temperature: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.n_features = linear.in_features
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
    linear = encoder.backbone.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    head = Head(linear, encoder.temperature.clone())
    encoder.backbone.set_submodule(name, nn.Identity())
    encoder.temperature.fill_(1)
    return encoder, head


def tensors_of(network: nn.Module, backbone: str) -> dict[str, Tensor]:
    """Return the state_dict of a network, exported or not, in parts or not, under the names of a `TileClassifier`."""
    if not isinstance(network, Joined):
        return network.state_dict()
    name = find_backbone(backbone).head
    of_head = network.head.state_dict().items()
    return {**network.encoder.state_dict(), **{f"backbone.{name}.{own.removeprefix('linear.')}": each for own, each in of_head}}
