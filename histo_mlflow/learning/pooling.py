"""Global average pooling whose backward pass keeps the memory layout of the network; forward and results are torch's.

torch spreads the gradient of a mean over all pixels in the order of their positions. In a network in channels_last, where each
squeeze-and-excitation block adds it to another gradient, every such sum then reads one of the two across memory, and what
follows is in the slow layout: 16 % of a training step of EfficientNet-B3 at 224 px (docs/performance.md).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class GlobalAveragePool2d(nn.AdaptiveAvgPool2d):
    """A `torch.nn.AdaptiveAvgPool2d` to one pixel."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return ``(n, channels, 1, 1)``, the means of ``(n, channels, height, width)``."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(input)
        output: Tensor = _Mean.apply(input)
        return output


def use_fast_pooling(network: nn.Module) -> None:
    """Replace every global average pooling in `network` by one with the fast backward pass."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.AdaptiveAvgPool2d and child.output_size in (1, (1, 1)):
                setattr(module, name, GlobalAveragePool2d(1).train(child.training))


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = pixels.shape, pixels.dtype
        return functional.adaptive_avg_pool2d(pixels, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        n_pixels = ctx.shape[-2] * ctx.shape[-1]
        # A view: each sum that it goes into has the layout of the other term.
        spread: Tensor = (gradients[0] / n_pixels).to(ctx.dtype).expand(ctx.shape)
        return spread
