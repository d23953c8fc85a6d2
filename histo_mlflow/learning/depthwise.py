"""Depthwise convolutions whose backward pass is fast on a CPU; forward and results are torch's.

oneDNN falls back to its reference code for three parts of this backward pass:

- the gradient of a kernel that is higher than the map that it makes, in any precision: of tiles of 32 to 96 px the deep
  layers of an EfficientNet make maps of 1 to 4 px, and these gradients took up to half of a training step;
- in bf16 the gradient of the input for a stride of 2 and the gradient of a 5 x 5 kernel: in EfficientNet-B3 at 224 px they
  took two thirds of a training step.

The first is a sum of products of shifted maps, the others can be written as convolutions that oneDNN has:
docs/performance.md gives the figures.

It stands between networks and torch, not in their layers, for these are of many kinds: EfficientNets that were learnt in
TensorFlow pad by hand and are no plain `torch.nn.Conv2d`.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

_WINDOW = 3  # edge length of the kernels whose gradient oneDNN computes fast


class FastDepthwise(TorchFunctionMode):
    """A context in which depthwise convolutions on a CPU learn fast, in fp32 and in bf16; others are left as they are."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or what stands in for it."""
        if func is functional.conv2d and not kwargs and (form := _Call(*args).form_of_fast()) is not None:
            return _DepthwiseFunction.apply(*form)
        return func(*args, **(kwargs or {}))


class _Call(NamedTuple):
    """The arguments of `torch.nn.functional.conv2d`, as layers give them."""

    pixels: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def form_of_fast(self) -> tuple[Tensor, Tensor, int, int] | None:
        """Return pixels and weight as they are multiplied, stride and padding; None where torch learns as fast."""
        size, stride, padding = self.weight.shape[2], _pair(self.stride), _pair(self.padding)
        is_plain = (
            1 < self.groups == self.pixels.shape[1] == self.weight.shape[0]
            and self.pixels.device.type == "cpu"
            and self.bias is None
            and size == self.weight.shape[3]
            and size % 2 == 1 < size
            and _pair(self.dilation) == (1, 1)
            and stride in ((1, 1), (2, 2))
            and padding in ((0, 0), (size // 2, size // 2))
        )
        is_learnt = torch.is_grad_enabled() and (self.pixels.requires_grad or self.weight.requires_grad)
        if not is_plain or not is_learnt:
            return None
        is_autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if is_autocast else self.pixels.dtype
        height = (self.pixels.shape[2] + 2 * padding[0] - size) // stride[0] + 1
        if dtype != torch.bfloat16 and not (dtype == torch.float32 and height < size):
            return None
        return self.pixels.to(dtype), self.weight.to(dtype), stride[0], padding[0]


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(pixels, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(pixels, weight, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        pixels, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        needs_pixels, needs_weight = ctx.needs_input_grad[:2]
        of_weight = _gradient_of_weight(gradient, pixels, weight, ctx.stride, ctx.padding) if needs_weight else None
        of_pixels = _gradient_of_input(gradient, pixels, weight, ctx.stride, ctx.padding) if needs_pixels else None
        return of_pixels, of_weight, None, None


def _gradient_of_input(gradient: Tensor, pixels: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return the gradient of `pixels`: with zeros between its values, `gradient` is that of a convolution with stride 1."""
    around = weight.shape[2] - 1 - padding
    if stride > 1:
        n, channels, height, width = pixels.shape
        lost = weight.shape[2] - 1 - 2 * padding  # rows and columns by which a convolution of stride 1 makes it smaller
        spread = gradient.new_zeros((n, height - lost, width - lost, channels)).permute(0, 3, 1, 2)  # channels last
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    return functional.conv2d(gradient, weight.flip(2, 3), padding=around, groups=len(weight))


def _gradient_of_weight(gradient: Tensor, pixels: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return the gradient of a kernel; in bf16 from 3 x 3 windows of it, of which neighbours share a row or column."""
    if gradient.shape[2] < weight.shape[2]:
        return _weight_gradient_of_small(gradient, pixels, weight, stride, padding)
    if weight.shape[2] == _WINDOW:
        return _weight_gradient(gradient, pixels, weight, stride, padding=padding)
    padded = functional.pad(pixels, [padding] * 4)
    height, width = ((edge - 1) * stride + _WINDOW for edge in gradient.shape[2:])
    whole, window = torch.empty_like(weight), weight[:, :, :_WINDOW, :_WINDOW]
    starts = range(0, weight.shape[2] - 1, _WINDOW - 1)
    for top in starts:
        for left in starts:
            seen = padded[:, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
            part = _weight_gradient(gradient, seen, window, stride, padding=0)
            whole[:, :, top : top + _WINDOW, left : left + _WINDOW] = part
    return whole


def _weight_gradient_of_small(gradient: Tensor, pixels: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return the gradient of a kernel value by value: what it was multiplied with, in all places, times the gradient there."""
    gradient, padded = gradient.float(), functional.pad(pixels.float(), [padding] * 4)
    rows, columns = (stride * (edge - 1) + 1 for edge in gradient.shape[2:])
    whole = torch.empty_like(weight)
    for y, x in product(range(weight.shape[2]), repeat=2):
        whole[:, 0, y, x] = (gradient * padded[:, :, y : y + rows : stride, x : x + columns : stride]).sum((0, 2, 3))
    return whole


def _weight_gradient(gradient: Tensor, pixels: Tensor, weight: Tensor, stride: int, *, padding: int) -> Tensor:
    pair = [stride, stride]
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, pixels, weight, None, pair, [padding] * 2, [1, 1], False, [0, 0], len(weight), [False, True, False]
    )[1]
    return result
