from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import efficientnet_b3

from histo_mlflow.learning.depthwise import FastDepthwise
from histo_mlflow.models.backbones import find_backbone


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("edge", "pads"), [(2, True), (7, True), (7, False), (12, True), (12, False)])
def test_gradients_are_those_of_torch(size: int, stride: int, edge: int, pads: bool) -> None:
    """bf16 has 8 bits: both backward passes must be as close to the exact gradient as one another."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn((4, 6, edge, edge), generator=generator).to(memory_format=torch.channels_last)
    layer = nn.Conv2d(6, 6, size, stride=stride, padding=size // 2 if pads else 0, groups=6, bias=False)
    shape = layer(pixels).shape
    direction = torch.randn(shape, generator=generator)

    def gradients(is_bf16: bool, is_fast: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image = pixels.clone().requires_grad_()
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16), FastDepthwise() if is_fast else nullcontext():
            out = layer(image)
        assert ("DepthwiseFunction" in out.grad_fn.name()) == is_fast
        (out.float() * direction).sum().backward()
        assert image.grad is not None
        assert layer.weight.grad is not None
        return out.float().detach(), image.grad, layer.weight.grad.clone()

    exact, ours, torchs = gradients(False, False), gradients(True, True), gradients(True, False)
    torch.testing.assert_close(ours[0], torchs[0], rtol=0, atol=0)
    for true, own, other in zip(exact[1:], ours[1:], torchs[1:], strict=True):
        scale = true.abs().max()
        assert (own - true).abs().max() / scale < 0.01 + (other - true).abs().max() / scale


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("edges", [(1, 1), (2, 2), (2, 9), (6, 4)])
def test_on_small_maps_gradients_in_fp32_are_those_of_torch(size: int, stride: int, edges: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn((4, 6, *edges), generator=generator).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn((6, 1, size, size), generator=generator, requires_grad=True)

    def gradients(is_fast: bool) -> tuple[torch.Tensor, ...]:
        with FastDepthwise() if is_fast else nullcontext():
            out = functional.conv2d(pixels, weight, None, stride, size // 2, 1, 6)
        assert ("DepthwiseFunction" in out.grad_fn.name()) == (is_fast and out.shape[2] < size)
        return torch.autograd.grad(out.sin().sum(), (pixels, weight))

    for ours, torchs in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-5)


def test_the_fast_path_is_taken_only_where_it_is_one_and_something_is_learnt() -> None:
    layer = nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False)
    pixels = torch.zeros((2, 6, 8, 8))

    def is_fast(image: torch.Tensor) -> bool:
        out = layer(image)
        return out.grad_fn is not None and "DepthwiseFunction" in out.grad_fn.name()

    with FastDepthwise():
        assert not is_fast(pixels), "fp32, and the map is as high as the kernel"
        assert is_fast(pixels[:, :, :4])
        with torch.autocast("cpu", torch.bfloat16):
            assert is_fast(pixels)
            with torch.no_grad():
                assert not is_fast(pixels)
            layer.requires_grad_(requires_grad=False)
            assert not is_fast(pixels), "nothing is learnt"
            assert is_fast(pixels.clone().requires_grad_())


def test_other_convolutions_are_left_as_they_are() -> None:
    pixels = torch.zeros((2, 6, 8, 8), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), FastDepthwise():
        for out in (
            functional.conv2d(pixels, torch.zeros((4, 6, 3, 3))),
            functional.conv2d(pixels, torch.zeros((6, 1, 1, 1)), None, 1, 0, 1, 6),
            functional.conv2d(pixels, torch.zeros((6, 1, 1, 1)), None, 2, 0, 1, 6),
            functional.conv2d(pixels, torch.zeros((6, 1, 3, 3)), None, 1, "same", 1, 6),
            functional.conv2d(pixels, torch.zeros((6, 1, 3, 3)), None, 1, 1, 2, 6),
            functional.conv2d(pixels[:, :1], torch.zeros((1, 1, 3, 3))),
            functional.conv2d(pixels, torch.zeros((6, 1, 3, 3)), torch.zeros(6), 1, 1, 1, 6),
        ):
            assert "DepthwiseFunction" not in out.grad_fn.name()
        assert "DepthwiseFunction" in functional.conv2d(pixels, torch.zeros((6, 1, 3, 3)), None, 2, 1, 1, 6).grad_fn.name()


def test_a_frozen_kernel_gets_no_gradient() -> None:
    layer = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False).requires_grad_(requires_grad=False)
    pixels = torch.ones((2, 6, 8, 8), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), FastDepthwise():
        layer(pixels).float().sum().backward()
    assert layer.weight.grad is None
    assert pixels.grad is not None


def build_b3() -> nn.Module:
    return efficientnet_b3(num_classes=2)


def build_lite0() -> nn.Module:
    """It pads by hand, for images of one size."""
    return find_backbone("lite0").build(2, 64)


def build_timm() -> nn.Module:
    """It pads by hand, as large as the image needs."""
    return find_backbone("timm:tf_efficientnet_lite0").build(2, 64)


@pytest.mark.parametrize(("build", "n_blocks"), [(build_b3, 26), (build_lite0, 16), (build_timm, 16)])
def test_every_depthwise_layer_of_efficientnets_is_fast(build: Callable[[], nn.Module], n_blocks: int) -> None:
    with torch.autocast("cpu", torch.bfloat16), FastDepthwise():
        logits = build().train()(torch.zeros((2, 3, 64, 64)))
    seen, ahead = set(), [logits.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [each for each, _ in node.next_functions]
    assert sum("DepthwiseFunction" in node.name() for node in seen) == n_blocks
