"""What is known of a network that can learn, whatever source it comes from; knows none of them."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from histo_mlflow.errors import OptionError
from histo_mlflow.models.weight_files import WeightFile

BILINEAR, BICUBIC = "bilinear", "bicubic"

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Pixels:
    """What pixels a network expects, as its published weights have learnt from them.

    Attributes:
        size_px: Edge length.
        mean: Of each channel, for values from 0 to 1; subtracted.
        std: Of each channel; divided by.
        interpolation: By which tiles of another size are resized: ``bilinear`` or ``bicubic``.
    """

    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = BILINEAR


NO_PIXELS = Pixels(0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Of what takes features instead."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network that any number of classes can be asked of.

    Attributes:
        name: By which it is found.
        build: From the number of classes and the edge length of its input in pixels to a module from normalised
            ``(n_tiles, 3, height, width)`` to logits, with weights drawn from torch's generator.
        pixels: What it expects.
        weights: The published ones, or None if there are none.
        head: Name of the last linear layer, the only one whose size depends on the number of classes.
        n_features: Numbers that go into that layer for each tile.
        pooling: Name of the module whose input are the last feature maps ``(n_tiles, channels, rows, columns)``, or None.
        comes_with_weights: Whether what is built has the published weights already.
        convert: From tensors under the names of others to the network's own; or None. Raises `RuntimeError` or `LookupError`.
        resize: From tensors for one edge length, and another edge length, to tensors for that one; or None where tensors serve
            any.
    """

    name: str
    build: Callable[[int, int], nn.Module]
    pixels: Pixels
    weights: WeightFile | None
    head: str
    n_features: int
    pooling: str | None = None
    comes_with_weights: bool = False
    convert: Callable[[Mapping[str, Any]], Tensors] | None = field(default=None, kw_only=True)
    resize: Callable[[Tensors, int, int], Tensors] | None = field(default=None, kw_only=True)

    def outline(self, n_classes: int, size_px: int) -> Tensors:
        """Return the network's state_dict without storage: names, shapes and types."""
        tensors: Tensors = outline_of(self.build, n_classes, size_px).state_dict()
        return tensors

    def resized(self, tensors: Tensors, before_px: int, after_px: int) -> Tensors:
        """Return tensors that were made for one edge length as they are for another."""
        if self.resize is None or before_px == after_px:
            return tensors
        return self.resize(tensors, before_px, after_px)


def outline_of(build: Callable[[int, int], nn.Module], n_classes: int, size_px: int) -> nn.Module:
    """Return the module, without storage where it can be made so; nothing is drawn."""
    with suppress(NotImplementedError), torch.device("meta"):
        return build(n_classes, size_px)
    with torch.random.fork_rng(devices=[]):  # some, such as torchvision's RegNet, compute their widths with tensors
        return build(n_classes, size_px)


def measure_head(name: str, network: nn.Module, head: nn.Module | None) -> tuple[str, int]:
    """Return the name and the number of inputs of `head` in `network`.

    Raises:
        OptionError: It is not a linear layer.
    """
    if not isinstance(head, nn.Linear):
        raise OptionError(
            f"backbone={name}: does not end in a linear layer; use another one, such as torchvision:efficientnet_b3"
        )
    return next(own for own, module in network.named_modules() if module is head), head.in_features


def last_linear(network: nn.Module) -> nn.Module | None:
    """Return the last linear layer, or None if there is none."""
    return next((module for module in reversed(list(network.modules())) if isinstance(module, nn.Linear)), None)
