import pytest
import torch
from torch import Tensor, nn

from histo_mlflow.served_model.folding import fold_graph


class _Network(nn.Module):
    """Two batch norms that a convolution can do, and two that none can: of a shared output, and of what is no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise, self.shared = (
            nn.Conv2d(3, 4, 3),
            nn.Conv2d(4, 4, 3, groups=4, bias=False),
            nn.Conv2d(4, 5, 1),
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(n_channels) for n_channels in (4, 4, 5, 5))
        for norm in self.norms:
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.norms[1](self.depthwise(self.norms[0](self.first(pixels)).relu_()))
        shared = self.shared(features)
        return self.norms[3](torch.tanh(shared) + self.norms[2](shared))


def _export(network: nn.Module) -> torch.fx.GraphModule:
    example = torch.zeros((2, 3, 9, 9))
    return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()


def _norms_in(graph: torch.fx.GraphModule) -> int:
    return sum("batch_norm" in str(node.target) for node in graph.graph.nodes)


@pytest.mark.parametrize("n", [1, 5])
def test_the_convolutions_do_what_the_batch_norms_did(n: int) -> None:
    torch.manual_seed(0)
    exported = _export(_Network().eval())
    folded = fold_graph(exported)
    assert (_norms_in(exported), _norms_in(folded)) == (4, 2)
    pixels = torch.randn((n, 3, 9, 9))
    with torch.inference_mode():
        torch.testing.assert_close(folded(pixels), exported(pixels), rtol=1e-5, atol=1e-5)
    assert fold_graph(folded) is folded
    left = {name.rpartition(".")[0] for name in folded.state_dict() if not name.startswith("folded_") and "tracked" not in name}
    assert left == {"norms.2", "norms.3", "shared"}, "what was replaced goes"


def test_batch_norms_in_training_stay() -> None:
    exported = _export(_Network().train())
    assert fold_graph(exported) is exported


def test_a_weight_that_is_computed_stays() -> None:
    convolution = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
    exported = _export(nn.Sequential(convolution, nn.BatchNorm2d(3)).eval())
    assert _norms_in(exported) == 1
    assert fold_graph(exported) is exported


def test_a_convolution_whose_weight_two_calls_share_keeps_it() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            nn.init.normal_(self.norm.weight)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.convolution(self.norm(self.convolution(pixels)))

    torch.manual_seed(0)
    exported = _export(Twice().eval())
    folded = fold_graph(exported)
    assert _norms_in(folded) == 0
    pixels = torch.randn((2, 3, 9, 9))
    with torch.inference_mode():
        torch.testing.assert_close(folded(pixels), exported(pixels), rtol=1e-5, atol=1e-5)
