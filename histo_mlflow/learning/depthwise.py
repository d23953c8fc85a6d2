"""Depthwise convolution whose backward pass is fast in bf16 on a CPU; forward, results and state_dict are torch's.

oneDNN has no bf16 kernel on CPUs for two parts of this backward pass, the gradient of the input for a stride of 2 and the
gradient of a 5 x 5 kernel, and falls back to its reference code: in EfficientNet-B3 at 224 px they took two thirds of a
training step. Both can be written as convolutions that it has: docs/performance.md gives the figures.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_WINDOW = 3  # edge length of the kernels whose gradient oneDNN computes fast


class DepthwiseConv2d(nn.Conv2d):
    """A `torch.nn.Conv2d` with one filter per channel, a square odd kernel, and padding that keeps the centre."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return the convolution of ``(n, channels, height, width)``."""
        is_bf16_on_cpu = input.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not (is_bf16_on_cpu and self.training and torch.is_grad_enabled()):
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cpu")
        output: Tensor = _DepthwiseFunction.apply(input.to(dtype), self.weight.to(dtype), self.stride[0])
        return output


def use_fast_depthwise(network: nn.Module) -> None:
    """Replace every depthwise convolution in `network` that `DepthwiseConv2d` can do by one with the same parameter."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and _is_plain_depthwise(child):
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
                fast.train(child.training)
                setattr(module, name, fast)


def _is_plain_depthwise(convolution: nn.Conv2d) -> bool:
    size = convolution.kernel_size[0]
    return (
        type(convolution) is nn.Conv2d
        and convolution.groups == convolution.in_channels == convolution.out_channels
        and convolution.bias is None
        and size % 2 == 1
        and convolution.kernel_size == (size, size)
        and convolution.padding == (size // 2, size // 2)
        and convolution.padding_mode == "zeros"
        and convolution.dilation == (1, 1)
        and convolution.stride[0] == convolution.stride[1]
    )


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(pixels, weight)
        ctx.stride = stride
        return functional.conv2d(pixels, weight, stride=stride, padding=weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        pixels, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_weight = _gradient_of_weight(gradient, pixels, weight, ctx.stride)
        return _gradient_of_input(gradient, pixels, weight, ctx.stride), of_weight, None


def _gradient_of_input(gradient: Tensor, pixels: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the gradient of `pixels`: with zeros between its values, `gradient` is that of a convolution with stride 1."""
    if stride > 1:
        spread = torch.zeros_like(pixels, memory_format=torch.channels_last)
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    return functional.conv2d(gradient, weight.flip(2, 3), padding=weight.shape[2] // 2, groups=len(weight))


def _gradient_of_weight(gradient: Tensor, pixels: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the gradient of a kernel, in bf16 put together from 3 x 3 windows, of which neighbours share a row or column."""
    size = weight.shape[2]
    if size == _WINDOW or weight.dtype != torch.bfloat16:
        return _weight_gradient(gradient, pixels, weight, stride, padding=size // 2)
    padded = functional.pad(pixels, [size // 2] * 4)
    height, width = ((edge - 1) * stride + _WINDOW for edge in gradient.shape[2:])
    whole, window = torch.empty_like(weight), weight[:, :, :_WINDOW, :_WINDOW]
    starts = range(0, size - 1, _WINDOW - 1)
    for top in starts:
        for left in starts:
            seen = padded[:, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
            part = _weight_gradient(gradient, seen, window, stride, padding=0)
            whole[:, :, top : top + _WINDOW, left : left + _WINDOW] = part
    return whole


def _weight_gradient(gradient: Tensor, pixels: Tensor, weight: Tensor, stride: int, *, padding: int) -> Tensor:
    pair = [stride, stride]
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, pixels, weight, None, pair, [padding] * 2, [1, 1], False, [0, 0], len(weight), [False, True, False]
    )[1]
    return result
