"""Batch norms of an exported graph, done by the convolutions before them: the same logits to rounding, and faster."""

import copy
from operator import attrgetter
from typing import Any

import torch
from torch import fx
from torch.nn.utils import fuse_conv_bn_weights

_CONVOLUTION, _BATCH_NORM = torch.ops.aten.conv2d.default, torch.ops.aten.batch_norm.default


def fold_graph(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy without the batch norms that use running statistics and alone take what a convolution puts out.

    A graph in which there are none is returned as it is.
    """
    if not any(_is_foldable(node) for node in module.graph.nodes):
        return module
    folded = copy.deepcopy(module)
    replaced = [each for node in list(folded.graph.nodes) if _is_foldable(node) for each in _fold(folded, node)]
    used = {node.target for node in folded.graph.nodes if node.op == "get_attr"}
    for name in set(replaced) - used:
        owner, _, own_name = name.rpartition(".")
        delattr(folded.get_submodule(owner), own_name)
    folded.recompile()
    return folded


def _is_foldable(norm: fx.Node) -> bool:
    convolution = norm.args[0] if norm.args else None
    if norm.target is not _BATCH_NORM or norm.args[5] or not isinstance(convolution, fx.Node):
        return False
    values = (*convolution.args[1:3], *norm.args[1:5])
    is_stored = all(value is None or (isinstance(value, fx.Node) and value.op == "get_attr") for value in values)
    return is_stored and convolution.target is _CONVOLUTION and len(convolution.users) == 1


def _fold(module: fx.GraphModule, norm: Any) -> list[str]:
    """Let the convolution do the work of `norm`, and return the names of the tensors that this replaces."""
    convolution = norm.args[0]
    pixels, weight, *rest = convolution.args
    bias = rest[0] if rest else None
    old = [weight, bias, *norm.args[1:5]]
    tensors: list[Any] = [None if node is None else attrgetter(node.target)(module) for node in old]
    weight_tensor, bias_tensor, scale, shift, mean, variance = tensors
    new_weight, new_bias = fuse_conv_bn_weights(weight_tensor, bias_tensor, mean, variance, norm.args[7], scale, shift)
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
    unused = [node for node in old if node is not None and not node.users]
    for node in dict.fromkeys(unused):
        module.graph.erase_node(node)
    return [node.target for node in unused]
