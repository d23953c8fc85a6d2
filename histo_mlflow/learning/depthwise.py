"""Depthwise convolution whose backward pass is fast in bf16 on a CPU; forward, results and state_dict are torch's.

oneDNN has no bf16 kernel on CPUs for two parts of this backward pass, the gradient of the input for a stride of 2 and the
gradient of a 5 x 5 kernel, and falls back to its reference code: in EfficientNet-B3 at 224 px they took two thirds of a
training step. Both can be said in convolutions that it has: docs/performance.md gives the figures.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from histo_mlflow.learning.workspace import WORKSPACE

_WINDOW = 3  # edge length of the kernels whose gradient oneDNN computes fast


class DepthwiseConv2d(nn.Conv2d):
    """A `torch.nn.Conv2d` with one filter per channel, a square odd kernel, and padding that keeps the centre."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return the convolution of ``(n, channels, height, width)``."""
        is_bf16_on_cpu = input.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not (is_bf16_on_cpu and self.training and torch.is_grad_enabled()):
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cpu")
        return convolve_depthwise(input.to(dtype), self.weight.to(dtype), self.stride[0])


def convolve_depthwise(
    pixels: Tensor, weight: Tensor, stride: int, *, make_again: Callable[[], Tensor] | None = None
) -> Tensor:
    """Return the convolution of ``(n, channels, height, width)`` with ``(channels, 1, size, size)`` of the same type.

    The backward pass needs `pixels` once more: they are kept for it, or come from `make_again`.
    """
    output: Tensor = _DepthwiseFunction.apply(pixels, weight, stride, make_again)
    return output


def use_fast_depthwise(network: nn.Module) -> None:
    """Exchange every depthwise convolution without bias in `network` for a `DepthwiseConv2d` with the same parameter."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and child.groups == child.in_channels == child.out_channels and child.bias is None:
                fast = DepthwiseConv2d(
                    child.in_channels,
                    child.out_channels,
                    child.kernel_size,  # type: ignore[arg-type]
                    stride=child.stride,  # type: ignore[arg-type]
                    padding=child.padding,  # type: ignore[arg-type]
                    groups=child.groups,
                    bias=False,
                    device="meta",
                )
                fast.weight = child.weight
                setattr(module, name, fast)


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, stride: int, make_again: Callable[[], Tensor] | None) -> Tensor:
        ctx.save_for_backward(weight, *([] if make_again else [pixels]))
        ctx.shape, ctx.stride, ctx.make_again = pixels.shape, stride, make_again
        return functional.conv2d(pixels, weight, stride=stride, padding=weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weight, *kept = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        # One after the other: what was made again is large, and is not needed for the gradient of the input.
        of_weight = _gradient_of_weight(gradient, kept.pop() if kept else ctx.make_again(), weight, ctx.stride)
        return _gradient_of_input(gradient, ctx.shape, weight, ctx.stride), of_weight, None, None


def _gradient_of_input(gradient: Tensor, shape: torch.Size, weight: Tensor, stride: int) -> Tensor:
    """Return what a stride of 1 has as its gradient, for `gradient` with zeros put where the stride has skipped."""
    if stride > 1:
        spread = WORKSPACE.lend(shape, gradient.dtype, "activated").zero_()  # an activation has served by now
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    return functional.conv2d(gradient, weight.flip(2, 3), padding=weight.shape[2] // 2, groups=len(weight))


def _gradient_of_weight(gradient: Tensor, pixels: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the gradient of a kernel, in bf16 put together from 3 x 3 windows, of which neighbours share a row or column."""
    size = weight.shape[2]
    if size == _WINDOW or weight.dtype != torch.bfloat16:
        return _weight_gradient(gradient, pixels, weight, stride, padding=size // 2)
    n, channels, *edges = pixels.shape
    margin = size // 2
    padded = WORKSPACE.lend((n, channels, *(edge + 2 * margin for edge in edges)), pixels.dtype, "padded").zero_()
    padded[:, :, margin:-margin, margin:-margin] = pixels
    height, width = ((edge - 1) * stride + _WINDOW for edge in gradient.shape[2:])
    seen = WORKSPACE.lend((n, channels, height, width), pixels.dtype, "window")
    whole, window = torch.empty_like(weight), weight[:, :, :_WINDOW, :_WINDOW]
    starts = range(0, size - 1, _WINDOW - 1)
    for top in starts:
        for left in starts:
            seen.copy_(padded[:, :, top : top + height, left : left + width])
            part = _weight_gradient(gradient, seen, window, stride, padding=0)
            whole[:, :, top : top + _WINDOW, left : left + _WINDOW] = part
    return whole


def _weight_gradient(gradient: Tensor, pixels: Tensor, weight: Tensor, stride: int, *, padding: int) -> Tensor:
    pair = [stride, stride]
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, pixels, weight, None, pair, [padding] * 2, [1, 1], False, [0, 0], len(weight), [False, True, False]
    )[1]
    return result
