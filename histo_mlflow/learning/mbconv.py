"""MBConv blocks whose training on a CPU keeps only what convolutions gave and makes the rest again for the backward pass.

Autograd keeps each wide tensor of a block three times: before batch norm, after it, and after SiLU. Of these only the output of
the depthwise convolution is kept here; the 1 x 1 convolution that widens, batch norm, SiLU and the gate cost little and are
done twice. At 224 px this is faster too, for memory that is never asked for need not be cleared (docs/performance.md gives the
figures). Values, parameters and state_dict are torchvision's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.efficientnet import MBConv

from histo_mlflow.learning.depthwise import convolve_depthwise
from histo_mlflow.learning.workspace import WORKSPACE

_MIN_BYTES = 2**22  # of the widest tensor of a block; smaller ones stay in the processor's cache, and keeping them is faster


class FrugalSequential(nn.Sequential):
    """The layers of an `MBConv`: expansion (in most blocks), depthwise convolution, squeeze-and-excitation, projection."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the projection of ``(n, channels, height, width)``."""
        if not self._is_worth_it(pixels):
            output: Tensor = super().forward(pixels)  # type: ignore[no-untyped-call]
            return output
        layers: list[Any] = list(self)
        *expansion, depthwise, squeeze, projection = layers
        dtype = _dtype_of(pixels)
        if expansion:
            wide = _Activation(expansion[0][1], _expand_again(pixels.detach().to(dtype), expansion[0][0]))
            activated = wide.of(expansion[0][0](pixels))
            weight = depthwise[0].weight.to(dtype)
            convolved = convolve_depthwise(activated, weight, depthwise[0].stride[0], make_again=wide.make_again)
        else:
            convolved = depthwise[0](pixels)
        inner = _Activation(depthwise[1])
        activated = inner.of(convolved)
        gate = squeeze.activation(squeeze.fc1(_SpatialMean.apply(activated)))
        gate = squeeze.scale_activation(squeeze.fc2(gate))
        projected = _GatedProjection.apply(activated, gate, projection[0].weight.to(dtype), inner.make_again)
        normalized: Tensor = projection[1](projected)
        return normalized

    def _is_worth_it(self, pixels: Tensor) -> bool:
        if not (self.training and pixels.device.type == "cpu" and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return False
        if not all(module.training for module in self.modules()):  # batch norm with frozen statistics
            return False
        first: Any = self[0]
        n_bytes: int = pixels.numel() // pixels.shape[1] * first[0].out_channels * _dtype_of(pixels).itemsize
        return n_bytes >= _MIN_BYTES


def use_frugal_blocks(network: nn.Module) -> None:
    """Let every `MBConv` in `network` train frugally on a CPU; parameters and their names stay."""
    for module in network.modules():
        if isinstance(module, MBConv):
            module.block = FrugalSequential(*module.block)


def _dtype_of(pixels: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else pixels.dtype


def _expand_again(pixels: Tensor, convolution: nn.Conv2d) -> Callable[[], Tensor]:
    return lambda: functional.conv2d(pixels, convolution.weight.detach().to(pixels.dtype))


class _Activation:
    """Batch norm and SiLU of a convolution's output, forgotten after the forward pass.

    Whoever takes the activation may ask for it again, once and in the backward pass, before its own gradient comes back here.
    """

    def __init__(self, norm: nn.BatchNorm2d, convolve_again: Callable[[], Tensor] | None = None) -> None:
        self._norm = norm
        self._convolve_again = convolve_again
        self._convolved: Tensor | None = None  # kept if it can't be had again
        self._normalized: Tensor | None = None
        self._mean = torch.empty_like(norm.bias)
        self._inverse_sd = torch.empty_like(norm.bias)

    def of(self, convolved: Tensor) -> Tensor:
        """Return the activation, part of autograd's graph."""
        activated: Tensor = _NormalizeAndActivate.apply(convolved, self._norm.weight, self._norm.bias, self)
        return activated

    def make(self, convolved: Tensor) -> Tensor:
        """Return the activation and update the running statistics, as `nn.BatchNorm2d` does in training."""
        norm = self._norm
        assert norm.num_batches_tracked is not None  # as torchvision builds it
        assert norm.momentum is not None
        norm.num_batches_tracked.add_(1)
        if self._convolve_again is None:
            self._convolved = convolved
        normalized = WORKSPACE.lend_like(convolved, "normalized")
        torch.ops.aten.native_batch_norm.out(
            convolved, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps,
            out=normalized, save_mean=self._mean, save_invstd=self._inverse_sd,
        )  # fmt: skip
        return functional.silu(normalized, inplace=True)

    def make_again(self) -> Tensor:
        """Return the same activation, outside of autograd's graph."""
        norm = self._norm
        if self._convolve_again is not None:
            self._convolved = self._convolve_again()
        assert self._convolved is not None  # `make` came before
        self._normalized = WORKSPACE.lend_like(self._convolved, "normalized")
        variance, unused = self._inverse_sd**-2 - norm.eps, self._mean.new_empty(0)
        torch.ops.aten.native_batch_norm.out(
            self._convolved, norm.weight, norm.bias, self._mean, variance, False, 0.0, norm.eps,
            out=self._normalized, save_mean=unused, save_invstd=unused,
        )  # fmt: skip
        activated: Tensor = torch.ops.aten.silu.out(self._normalized, out=WORKSPACE.lend_like(self._convolved, "activated"))
        return activated

    def gradients(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of the convolution's output, the scale and the shift, and forget everything."""
        norm, normalized = self._norm, self._normalized
        # Written over the normalized values, which nobody needs any more.
        gradient = torch.ops.aten.silu_backward.grad_input(gradient, normalized, grad_input=normalized)
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
            gradient, self._convolved, norm.weight, norm.running_mean, norm.running_var, self._mean, self._inverse_sd, True,
            norm.eps, [True, True, True],
        )  # fmt: skip
        # Autograd's graph, and with it this object, lives until the whole backward pass is over.
        self._convolved = self._normalized = self._convolve_again = None
        return found


class _NormalizeAndActivate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, convolved: Tensor, _scale: Tensor, _shift: Tensor, activation: _Activation) -> Tensor:
        ctx.activation = activation
        return activation.make(convolved)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        of_convolved, of_scale, of_shift = ctx.activation.gradients(gradients[0])
        return of_convolved, of_scale, of_shift, None


class _SpatialMean(torch.autograd.Function):
    """The mean over height and width, whose gradient is not spread over them before it is added to another."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor) -> Tensor:
        ctx.shape = pixels.shape
        return _sum_over_pixels(pixels) / (pixels.shape[2] * pixels.shape[3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        height, width = ctx.shape[2:]
        spread: Tensor = (gradients[0] / (height * width)).expand(ctx.shape)
        return spread


class _GatedProjection(torch.autograd.Function):
    """A 1 x 1 convolution of activations times their gates ``(n, channels, 1, 1)``."""

    @staticmethod
    def forward(ctx: Any, activated: Tensor, gate: Tensor, weight: Tensor, make_again: Callable[[], Tensor]) -> Tensor:
        ctx.save_for_backward(gate, weight)
        ctx.make_again = make_again
        gated = torch.mul(activated, gate, out=WORKSPACE.lend_like(activated, "passing"))
        projected: Tensor = functional.conv2d(gated, weight)
        return projected

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        gate, weight = ctx.saved_tensors
        activated = ctx.make_again()
        gated = torch.mul(activated, gate, out=WORKSPACE.lend_like(activated, "passing"))
        of_gated, of_weight, _ = torch.ops.aten.convolution_backward(
            gradients[0], gated, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
        )
        of_gate = _sum_over_pixels(torch.mul(of_gated, activated, out=gated))
        return of_gated.mul_(gate), of_gate, of_weight, None


def _sum_over_pixels(pixels: Tensor) -> Tensor:
    """Return the sums ``(n, channels, 1, 1)``, as a product with ones: `sum` of bf16 would first write all of it in fp32."""
    n, channels, height, width = pixels.shape
    flat = pixels.permute(0, 2, 3, 1).reshape(n, height * width, channels)  # channels_last: a view
    return torch.bmm(pixels.new_ones((1, 1, 1)).expand(n, 1, height * width), flat).view(n, channels, 1, 1)
