"""The layers of a network in the order in which tiles pass them, found in its module tree; knows no network by name."""

from collections import Counter
from collections.abc import Iterator

from torch import nn

STEPS_TO_STEM = 12
"""Depth of every network's first layer: with one scale for all, a rate that falls with depth means the same for each."""

_SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layers_of(network: nn.Module, head: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer, the stem first and `head` last; each parameter is in one layer.

    A layer is a convolution or a linear layer, or a whole block: what a sequence consists of and is none itself. A norm, and
    parameters that lie loose beside the modules (class tokens, embeddings of positions), belong to the layer before them; what
    comes before the first layer belongs to that.
    """
    taken = {id(parameter) for parameter in head.parameters()}
    layers: list[list[nn.Parameter]] = [[]]
    has_begun = False
    for piece, is_loose in _pieces_of(network, is_in_sequence=False):
        parameters = [parameter for parameter in piece if id(parameter) not in taken]
        taken.update(map(id, parameters))
        if not is_loose and any(parameter.ndim > 1 for parameter in parameters):
            if has_begun:
                layers.append([])
            has_begun = True
        layers[-1] += parameters
    return [layer for layer in (*layers, list(head.parameters())) if layer]


def depths_of(network: nn.Module, head: nn.Module) -> list[tuple[float, list[nn.Parameter]]]:
    """Return each layer with its depth, in equal steps from 0 for `head` to `STEPS_TO_STEM` for the stem; the head first."""
    layers = layers_of(network, head)[::-1]
    return [(STEPS_TO_STEM * k / max(1, len(layers) - 1), layer) for k, layer in enumerate(layers)]


def _pieces_of(module: nn.Module, *, is_in_sequence: bool) -> Iterator[tuple[list[nn.Parameter], bool]]:
    """Yield what is taken as a whole, in order of registration, and whether it lies loose beside modules."""
    children = [child for child in module.children() if any(True for _ in child.parameters())]
    is_block = is_in_sequence and not isinstance(module, _SEQUENCES) and not _is_stage(module)
    if not children or is_block:
        yield list(module.parameters()), False
        return
    yield list(module.parameters(recurse=False)), True
    for child in children:
        yield from _pieces_of(child, is_in_sequence=isinstance(module, _SEQUENCES))


def _is_stage(module: nn.Module) -> bool:
    """Return whether a module holds a sequence of blocks of a kind, as stages of ConvNeXt and Swin do; a block holds none."""
    for sequence in module.children():
        if isinstance(sequence, _SEQUENCES):
            inner = (child for child in sequence.children() if not isinstance(child, _SEQUENCES) and any(child.children()))
            if max(Counter(map(type, inner)).values(), default=0) > 1:
                return True
    return False
