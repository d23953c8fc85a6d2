"""Layers found in the module trees of networks that the code knows no name of; tensors have no storage, nothing is computed."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import timm
import torch
from torch import nn
from torchvision.models import get_model

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.layers import STEPS_TO_STEM, depths_of, layers_of
from histo_mlflow.learning.optimiser import make_optimizer
from histo_mlflow.learning.options import FitOptions, Recipe
from histo_mlflow.models.backbones import find_backbone
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.options import build

# Source and name; the class of its blocks; how many layers it has: stem, blocks, what else has a matrix of its own, head.
_NETWORKS = [
    ("torchvision", "efficientnet_b0", "MBConv", 1 + 16 + 2),
    ("torchvision", "resnet18", "BasicBlock", 1 + 8 + 1),
    ("torchvision", "convnext_tiny", "CNBlock", 1 + 18 + 3 + 1),  # three convolutions that halve between stages
    ("torchvision", "vit_b_16", "EncoderBlock", 1 + 12 + 1),
    ("torchvision", "mobilenet_v3_small", "InvertedResidual", 1 + 11 + 3),
    ("torchvision", "swin_t", "SwinTransformerBlock", 1 + 12 + 3 + 1),
    ("torchvision", "densenet121", "_DenseLayer", 1 + 58 + 3 + 1),
    ("torchvision", "shufflenet_v2_x0_5", "InvertedResidual", 1 + 16 + 2),
    ("ours", "lite0", "MBConvBlock", 1 + 16 + 2),  # its convolutions hold their padding as a child
    ("timm", "efficientnet_b0", "InvertedResidual", 1 + 16 + 2),
    ("timm", "resnet10t", "BasicBlock", 3 + 4 + 1),  # a stem of three convolutions
    ("timm", "convnext_atto", "ConvNeXtBlock", 1 + 12 + 3 + 1),
    ("timm", "vit_tiny_patch16_224", "Block", 1 + 12 + 1),
    ("timm", "mobilenetv3_small_050", "InvertedResidual", 1 + 11 + 3),
    ("timm", "swin_tiny_patch4_window7_224", "SwinTransformerBlock", 1 + 12 + 3 + 1),
]
_MAKERS: dict[str, Callable[[str], nn.Module]] = {
    "torchvision": lambda name: get_model(name, num_classes=5),
    "timm": lambda name: timm.create_model(name, num_classes=5),
    "ours": lambda name: find_backbone(name).build(5, 224),
}
each_network = pytest.mark.parametrize(
    ("source", "name", "block", "n_layers"), _NETWORKS, ids=[f"{source}:{name}" for source, name, *_ in _NETWORKS]
)


def _outline(source: str, name: str) -> tuple[nn.Module, nn.Linear]:
    """Return a network of 5 classes and its head."""
    with torch.device("meta"):
        network = _MAKERS[source](name).eval()
    return network, [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


def _place(layers: list[list[nn.Parameter]]) -> dict[int, int]:
    return {id(parameter): place for place, layer in enumerate(layers) for parameter in layer}


@each_network
def test_each_parameter_is_in_one_layer_and_each_block_is_whole(source: str, name: str, block: str, n_layers: int) -> None:
    network, head = _outline(source, name)
    layers = layers_of(network, head)
    assert sorted(id(each) for layer in layers for each in layer) == sorted(id(each) for each in network.parameters())
    assert set(map(id, layers[-1])) == set(map(id, head.parameters()))
    assert len(layers) == n_layers
    place = _place(layers)
    blocks = [module for module in network.modules() if type(module).__name__ == block]
    of_blocks = [{place[id(parameter)] for parameter in module.parameters()} for module in blocks]
    assert all(len(places) == 1 for places in of_blocks), "no block is cut"
    in_order = [places.pop() for places in of_blocks]
    assert in_order == sorted(set(in_order)), "each block is a layer, in order"
    loose = [parameter for name, parameter in network.named_parameters() if "token" in name or "pos_embed" in name]
    assert {place[id(parameter)] for parameter in loose} <= {0}


@each_network
def test_tiles_pass_the_layers_in_order(source: str, name: str, block: str, n_layers: int) -> None:
    network, head = _outline(source, name)
    place, passed = _place(layers_of(network, head)), []
    for module in network.modules():
        own = [place[id(parameter)] for parameter in module.parameters(recurse=False)]
        if own and not any(module.children()):
            module.register_forward_pre_hook(lambda *_, at=own[0]: passed.append(at))
    network(torch.empty(1, 3, 224, 224, device="meta"))
    assert passed == sorted(passed)
    assert (passed[0], passed[-1]) == (0, n_layers - 1)


@each_network
def test_depth_falls_in_equal_steps(source: str, name: str, block: str, n_layers: int) -> None:
    depths = [depth for depth, _ in depths_of(*_outline(source, name))]
    assert (depths[0], depths[-1]) == (0, STEPS_TO_STEM)
    steps = [after - before for before, after in pairwise(depths)]
    assert steps == pytest.approx([STEPS_TO_STEM / (n_layers - 1)] * (n_layers - 1))


def test_a_head_alone_is_its_own_layer() -> None:
    head = nn.Linear(4, 3)
    assert depths_of(head, head) == [(0.0, list(head.parameters()))]


def test_rates_fall_from_the_head_to_the_stem_and_norms_have_no_decay() -> None:
    network = TileClassifier(n_classes=3, tile_size_px=32, backbone="torchvision:resnet18")
    groups = make_optimizer(network, FitOptions(learning_rate=1e-3, layer_decay=0.75, weight_decay=0.1)).param_groups
    rates = [group["lr"] for group in groups]
    assert rates[0] == 1e-3
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-3 * 0.75**STEPS_TO_STEM)
    assert set(map(id, groups[0]["params"])) == {id(network.head.weight)}
    assert {(parameter.ndim > 1, group["weight_decay"]) for group in groups for parameter in group["params"]} == {
        (True, 0.1),
        (False, 0.0),
    }
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_without_layer_decay_there_are_two_groups_in_the_networks_order() -> None:
    """As in every run before there was one, which may be resumed."""
    network = TileClassifier(n_classes=3, tile_size_px=32, backbone="torchvision:resnet18")
    groups = make_optimizer(network, FitOptions(learning_rate=1e-3)).param_groups
    assert [group["lr"] for group in groups] == [1e-3, 1e-3]
    parameters = list(network.parameters())
    for group, is_matrix in zip(groups, (True, False), strict=True):
        expected = [parameter for parameter in parameters if (parameter.ndim > 1) is is_matrix]
        assert list(map(id, group["params"])) == list(map(id, expected))


def test_a_head_alone_has_no_layers() -> None:
    with pytest.raises(OptionError, match=r"^layer_decay=0.9: has no meaning with trainable=head"):
        build(Recipe, {"trainable": "head", "layer_decay": 0.9})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"layer_decay": 0.0}, "layer_decay=0.0: must be above 0 and at most 1"),
        ({"layer_decay": 1.1}, "layer_decay=1.1: must be above 0 and at most 1"),
        ({"head_epochs": 0}, "head_epochs=0: must be at least 1"),
        ({"trainable": "tail"}, "trainable=tail: must be one of all"),
        ({"trainable": "gradual", "epochs": 1}, "epochs=1 leaves none for all layers after head_epochs=1"),
        ({"trainable": "gradual", "head_epochs": 20}, "give at least 21 epochs"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(values: dict[str, object], reason: str) -> None:
    with pytest.raises(OptionError, match=reason) as raised:
        FitOptions(**values)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
