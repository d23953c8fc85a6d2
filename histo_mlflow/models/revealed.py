"""Logits, and beside them the features that the head has seen, of one pass; knows nothing of what is done with either."""

import copy
from typing import cast

import torch
from torch import Tensor, fx, nn

from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.parts import Joined

_LINEAR, _DIVIDE = torch.ops.aten.linear.default, torch.ops.aten.div.Tensor


class _Revealed(nn.Module):
    """A network whose head is a module of its own, which is listened to."""

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.tile_size_px = getattr(network, "tile_size_px", 1)
        self._listened_to = [head]  # not a part of its own: the network has it already

    def forward(self, tiles: Tensor) -> Tensor:
        """Return ``(n_tiles, n_classes + n_features)``."""
        seen: list[Tensor] = []
        hook = self._listened_to[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        try:
            logits: Tensor = self.network(tiles)
        finally:
            hook.remove()
        return torch.cat([logits, seen[0].to(logits.dtype)], dim=1)


def reveal(network: nn.Module) -> nn.Module | None:
    """Return a module that gives what `network` gives and beside it the features that its head sees, in one pass.

    That is ``(n_tiles, n_classes + n_features)`` of tiles ``(n_tiles, height, width, 3)`` uint8, or of features. None where the
    head can't be found: of what other runtimes run, only the logits are to be had.
    """
    if isinstance(network, TileClassifier):
        return _Revealed(network, network.head)
    if isinstance(network, Joined):
        return _Revealed(network, network.head)
    return _reveal_graph(network) if isinstance(network, fx.GraphModule) else None


def _reveal_graph(module: fx.GraphModule) -> fx.GraphModule | None:
    """Return a copy of an exported graph that puts out the input of its last linear layer too, or None if it ends otherwise."""
    revealed = copy.deepcopy(module)
    (output,) = [node for node in revealed.graph.nodes if node.op == "output"]
    (logits,) = output.args[0] if isinstance(output.args[0], tuple | list) else (output.args[0],)
    node = logits
    while isinstance(node, fx.Node) and node.target is _DIVIDE:  # by the temperature
        node = node.args[0]
    if not isinstance(node, fx.Node) or node.target is not _LINEAR:
        return None
    features = cast("fx.Node", node.args[0])
    with revealed.graph.inserting_before(output):
        both = revealed.graph.call_function(torch.ops.aten.cat.default, ([logits, features], 1))
    output.args = ((both,),) if isinstance(output.args[0], tuple | list) else (both,)
    revealed.recompile()
    return revealed
