import pytest
import torch
from torch import nn
from torchvision.models import efficientnet_b3

from histo_mlflow.learning.pooling import GlobalAveragePool2d, use_fast_pooling


class _Block(nn.Module):
    """Squeeze and excitation: pixels are scaled by what their mean says, so that two gradients are added."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.layer = nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        wide = 2 * pixels
        return wide * self.layer(self.pool(wide)).sigmoid()


@pytest.mark.parametrize("is_bf16", [False, True])
def test_gradients_are_those_of_torch_in_the_layout_of_the_pixels(is_bf16: bool) -> None:
    torch.manual_seed(0)
    plain, fast = _Block(), _Block()
    fast.load_state_dict(plain.state_dict())
    use_fast_pooling(fast)
    assert isinstance(fast.pool, GlobalAveragePool2d)
    pixels, found = torch.randn((3, 6, 5, 7)).to(memory_format=torch.channels_last), []
    for block in (plain, fast):
        image = pixels.clone(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            out = block(image)
        (out.float() ** 2).sum().backward()
        assert image.grad is not None
        found.append((out.detach(), image.grad, block.layer.weight.grad))
    (own, gradient, of_weight), (torchs, its_gradient, its_weight) = found[1], found[0]
    assert torch.equal(own, torchs)
    torch.testing.assert_close(gradient, its_gradient)
    torch.testing.assert_close(of_weight, its_weight)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_each_global_pooling_of_a_network_is_exchanged_and_names_stay() -> None:
    plain, network = efficientnet_b3(num_classes=2), efficientnet_b3(num_classes=2)
    use_fast_pooling(network)
    assert sum(isinstance(module, GlobalAveragePool2d) for module in network.modules()) == 27, "26 blocks and the last layer"
    assert list(network.state_dict()) == list(plain.state_dict())
    assert not any(isinstance(module, GlobalAveragePool2d) for module in plain.modules())


def test_scoring_takes_torchs_own() -> None:
    layer, pixels = GlobalAveragePool2d(1), torch.ones((1, 2, 3, 3), requires_grad=True)
    assert "Mean" in layer(pixels).grad_fn.name()
    assert layer.eval()(pixels).grad_fn.name() == nn.AdaptiveAvgPool2d(1)(pixels).grad_fn.name()
