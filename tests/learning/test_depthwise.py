import pytest
import torch
from torch import nn
from torchvision.models import efficientnet_b3

from histo_mlflow.learning.depthwise import DepthwiseConv2d, use_fast_depthwise


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("edge", [7, 12])
def test_gradients_are_those_of_torch(size: int, stride: int, edge: int) -> None:
    """bf16 has 8 bits: both backward passes must be as close to the exact gradient as one another."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn((4, 6, edge, edge), generator=generator).to(memory_format=torch.channels_last)
    plain = nn.Conv2d(6, 6, size, stride=stride, padding=size // 2, groups=6, bias=False)
    fast = DepthwiseConv2d(6, 6, size, stride=stride, padding=size // 2, groups=6, bias=False)
    fast.load_state_dict(plain.state_dict())
    shape = plain(pixels).shape
    direction = torch.randn(shape, generator=generator)

    def gradients(layer: nn.Conv2d, is_bf16: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image = pixels.clone().requires_grad_()
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            out = layer(image)
        (out.float() * direction).sum().backward()
        assert image.grad is not None
        assert layer.weight.grad is not None
        return out.float().detach(), image.grad, layer.weight.grad.clone()

    exact, ours, torchs = gradients(plain, False), gradients(fast, True), gradients(plain, True)
    torch.testing.assert_close(ours[0], torchs[0], rtol=0, atol=0)
    for true, own, other in zip(exact[1:], ours[1:], torchs[1:], strict=True):
        scale = true.abs().max()
        assert (own - true).abs().max() / scale < 0.01 + (other - true).abs().max() / scale


def test_the_fast_path_is_taken_only_in_bf16_training() -> None:
    layer = DepthwiseConv2d(6, 6, 5, padding=2, groups=6, bias=False)
    pixels = torch.zeros((2, 6, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert "DepthwiseFunction" in layer(pixels).grad_fn.name()
        assert "DepthwiseFunction" not in layer.eval()(pixels).grad_fn.name()
    assert "DepthwiseFunction" not in layer.train()(pixels).grad_fn.name()


def test_only_depthwise_layers_are_exchanged_and_names_stay() -> None:
    plain, network = efficientnet_b3(num_classes=2), efficientnet_b3(num_classes=2)
    use_fast_depthwise(network)
    changed = [module for module in network.modules() if isinstance(module, DepthwiseConv2d)]
    assert len(changed) == 26, "EfficientNet-B3 has 26 blocks with one each"
    assert list(network.state_dict()) == list(plain.state_dict())
    assert len(list(network.parameters())) == len(list(plain.parameters()))
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
