"""Batch norms of an exported graph, done by the convolutions before them: the same logits to rounding, and faster."""

import copy
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.utils import fuse_conv_bn_weights

_CONVOLUTION, _BATCH_NORM = torch.ops.aten.conv2d.default, torch.ops.aten.batch_norm.default


def fold_graph(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy without the batch norms that use running statistics and alone take what a convolution puts out."""
    folded = copy.deepcopy(module)
    norms = [node for node in folded.graph.nodes if node.target is _BATCH_NORM and not node.args[5]]
    for norm in norms:
        convolution = norm.args[0]
        if convolution.target is _CONVOLUTION and len(convolution.users) == 1:
            _fold(folded, convolution, norm)
    folded.recompile()
    return folded


def _fold(module: fx.GraphModule, convolution: Any, norm: Any) -> None:
    pixels, weight, *rest = convolution.args
    bias = rest[0] if rest else None
    scale, shift, mean, variance = (_tensor(module, node) for node in norm.args[1:5])
    new_weight, new_bias = fuse_conv_bn_weights(
        _tensor(module, weight), _tensor(module, bias), mean, variance, norm.args[7], scale, shift
    )
    # Under new names: the old weight may be another convolution's too.
    with module.graph.inserting_before(convolution):
        nodes = []
        for part, value in (("weight", new_weight), ("bias", new_bias)):
            name = f"folded_{convolution.name}_{part}"
            module.register_parameter(name, torch.nn.Parameter(value.detach(), requires_grad=False))
            nodes.append(module.graph.get_attr(name))
    convolution.args = (pixels, *nodes, *rest[1:])
    norm.replace_all_uses_with(convolution)
    module.graph.erase_node(norm)


def _tensor(module: fx.GraphModule, node: Any) -> Any:
    """Return the weight or statistic that `node` stands for, or None for none."""
    if node is None:
        return None
    owner, _, name = node.target.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(owner), name)
    return tensor
