import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import efficientnet_b3

from histo_mlflow.learning.depthwise import use_fast_depthwise
from histo_mlflow.learning.mbconv import FrugalSequential, _Activation, use_frugal_blocks
from histo_mlflow.learning.network import TileClassifier


@pytest.fixture
def frugal_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("histo_mlflow.learning.mbconv._MIN_BYTES", 0)


def _pair() -> tuple[nn.Module, nn.Module]:
    """A network as torchvision builds it, and the same one with frugal blocks."""
    torch.manual_seed(0)
    plain = efficientnet_b3(num_classes=3)
    frugal = copy.deepcopy(plain)
    use_fast_depthwise(frugal)
    use_frugal_blocks(frugal)
    return plain.to(memory_format=torch.channels_last), frugal.to(memory_format=torch.channels_last)


def _step(network: nn.Module, *, is_bf16: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)  # of dropout and stochastic depth
    pixels = torch.randn((4, 3, 64, 64), dtype=dtype).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        logits = network(pixels)
    torch.nn.functional.cross_entropy(logits.to(dtype), torch.tensor([0, 1, 2, 0])).backward()
    return logits.detach(), {
        name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None
    }


@pytest.mark.usefixtures("frugal_at_any_size")
def test_a_step_is_torchvisions() -> None:
    """In double precision nothing is left of rounding, so a wrong term would show."""
    plain, frugal = (network.double() for network in _pair())
    (expected, wanted), (found, got) = (_step(network, is_bf16=False, dtype=torch.float64) for network in (plain, frugal))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert list(got) == list(wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-6, atol=1e-9, msg=name)
    for (name, buffer), other in zip(plain.named_buffers(), frugal.buffers(), strict=True):
        torch.testing.assert_close(other, buffer, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.usefixtures("frugal_at_any_size")
def test_in_bf16_it_is_as_close_to_the_exact_gradient_as_torch() -> None:
    plain, frugal = _pair()
    exact = _step(copy.deepcopy(plain), is_bf16=False)[1]
    torchs, ours = (_step(network, is_bf16=True)[1] for network in (plain, frugal))

    def error(gradients: dict[str, Tensor]) -> float:
        norms = [(gradients[name] - exact[name]).norm() / exact[name].norm() for name in exact]
        return float(torch.stack(norms).median())

    assert error(ours) < 1.1 * error(torchs)


@pytest.mark.usefixtures("frugal_at_any_size")
def test_a_step_leaves_nothing_behind_and_is_repeatable() -> None:
    network = _pair()[1]
    first = _step(copy.deepcopy(network), is_bf16=True)[1]
    second = _step(network, is_bf16=True)[1]
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("frugal_at_any_size", "process_group")
@pytest.mark.filterwarnings("ignore:.*broadcast_buffers")
def test_ddp_is_told_every_gradient_once() -> None:
    """Else it would wait for one that never comes, or move one before it is whole."""
    alone = _pair()[1]
    shared = DistributedDataParallel(copy.deepcopy(alone), broadcast_buffers=False)
    for _ in range(2):  # the second step complains of what the first has left open
        wanted, got = (_step(network, is_bf16=True)[1] for network in (alone, shared))
        for name, gradient in wanted.items():
            assert torch.equal(got[f"module.{name}"], gradient), name


@pytest.mark.usefixtures("frugal_at_any_size")
def test_less_is_kept_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_bytes = [0, 0]
    make = _Activation.make

    def counted(self: _Activation, convolved: Tensor) -> Tensor:
        activated = make(self, convolved)
        kept_bytes[1] += convolved.nbytes if self._convolved is not None else 0
        return activated

    monkeypatch.setattr(_Activation, "make", counted)
    for k, network in enumerate(_pair()):
        seen: set[int] = set()

        def count(tensor: Tensor, k: int = k, seen: set[int] = seen) -> Tensor:
            is_of_batch = tensor.ndim == 4 and tensor.shape[0] == 4
            kept_bytes[k] += tensor.nbytes if is_of_batch and tensor.data_ptr() not in seen else 0
            seen.add(tensor.data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            logits = network(torch.randn((4, 3, 64, 64)))
        assert logits.requires_grad
    assert kept_bytes[1] < 0.4 * kept_bytes[0]


def test_small_tensors_evaluation_frozen_norms_and_no_grad_take_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    network = TileClassifier(n_classes=3, tile_size_px=32)
    calls: list[bool] = []
    decide = FrugalSequential._is_worth_it

    def noted(self: FrugalSequential, pixels: Tensor) -> bool:
        calls.append(decide(self, pixels))
        return calls[-1]

    monkeypatch.setattr(FrugalSequential, "_is_worth_it", noted)
    tiles = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    network.train()(tiles)
    assert not any(calls)
    monkeypatch.setattr("histo_mlflow.learning.mbconv._MIN_BYTES", 0)
    network(tiles)
    assert any(calls)
    calls.clear()
    network.eval()(tiles)
    with torch.no_grad():
        network.train()(tiles)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # frozen statistics
    network(tiles)
    assert len(calls) == 3 * 26
    assert not any(calls)


def test_names_and_parameters_stay() -> None:
    plain, frugal = _pair()
    assert list(frugal.state_dict()) == list(plain.state_dict())
    assert sum(isinstance(module, FrugalSequential) for module in frugal.modules()) == 26
