"""The networks that can learn, each under a name: how it is built, what pixels it expects, where its weights are.

A name is SOURCE:NETWORK. Every network of torchvision's that classifies images and ends in a linear layer can be named; another
source is one more function in `_SOURCES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.efficientnet import MBConv

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import OptionError

DEFAULT_BACKBONE = "torchvision:efficientnet_b3"

_WITH_AUXILIARY_HEADS = {"googlenet", "inception_v3"}  # while they learn, they return several tensors
_TORCHVISION_LICENCE = "BSD-3-Clause (torchvision); ImageNet, from which they were learnt, is for research"


@dataclass(frozen=True)
class Backbone:
    """A network that any number of classes can be asked of.

    Attributes:
        name: SOURCE:NETWORK.
        build: From the number of classes to a module from normalised ``(n_tiles, 3, height, width)`` to logits, with weights
            drawn from torch's generator.
        pooling: Name of the module whose input are the last feature maps ``(n_tiles, channels, rows, columns)``, or None.
        mean: Of each channel, for values from 0 to 1; subtracted.
        std: Of each channel; divided by.
        weights: The published ones, in words.
        url: Where they are: a state_dict for 1000 classes; the name of the file ends in the first digits of its SHA-256.
        licence: Under which they were published.
    """

    name: str
    build: Callable[[int], nn.Module]
    pooling: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str
    url: str
    licence: str

    @cached_property
    def head(self) -> str:
        """Name of the last linear layer, the only one whose size depends on the number of classes."""
        names: list[str] = [name for name, module in _outline_of(self.build).named_modules() if isinstance(module, nn.Linear)]
        if not names:
            raise OptionError(f"backbone={self.name}: does not end in a linear layer; use {DEFAULT_BACKBONE}")
        return names[-1]

    def outline(self, n_classes: int) -> dict[str, Tensor]:
        """Return the network's state_dict without storage: names, shapes and types."""
        return _outline_of(self.build, n_classes).state_dict()


def _outline_of(build: Callable[[int], nn.Module], n_classes: int = 1) -> nn.Module:
    with torch.device("meta"):
        return build(n_classes)


@cache
def find_backbone(name: str) -> Backbone:
    """Return the backbone of that name; raises `OptionError` if there is none."""
    source, _, network = name.partition(":")
    if source not in _SOURCES:
        raise OptionError(f"backbone={shorten(name)}: must be SOURCE:NETWORK with a source of {', '.join(_SOURCES)}")
    return _SOURCES[source](network)


def _find_in_torchvision(network: str) -> Backbone:
    if network in _WITH_AUXILIARY_HEADS or network not in torchvision.models.list_models(module=torchvision.models):
        raise OptionError(f"backbone=torchvision:{shorten(network)}: not a classifier of torchvision's that can be used")
    build = partial(_build_of_torchvision, network)
    weights = get_model_weights(network).DEFAULT
    prepare = weights.transforms()
    return Backbone(
        name=f"torchvision:{network}",
        build=build,
        pooling="avgpool" if hasattr(_outline_of(build), "avgpool") else None,
        mean=tuple(prepare.mean),
        std=tuple(prepare.std),
        weights=f"torchvision {weights}",
        url=weights.url,
        licence=weights.meta.get("license", _TORCHVISION_LICENCE),
    )


def _build_of_torchvision(network: str, n_classes: int) -> nn.Module:
    """Return a network; in an EfficientNet each residual branch ends in a scale of 0: an untrained block passes its input on.

    Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1. Without ImageNet weights this decides how much is learnt
    in few steps: on 360 demo tiles validation accuracy after 20 epochs rose from 0.49 to 0.71, on 718 tissue tiles the best
    validation loss fell from 0.72 to 0.28 (docs/decisions/0004). Weights that are loaded later replace it.
    """
    module: nn.Module = get_model(network, weights=None, num_classes=n_classes)
    for block in module.modules():
        if isinstance(block, MBConv) and block.use_res_connect:
            nn.init.zeros_(block.block[-1][1].weight)
    return module


_SOURCES: dict[str, Callable[[str], Backbone]] = {"torchvision": _find_in_torchvision}
