"""Statistics of batch norm as they are estimated before a validation; that processes agree on them: test_many_processes."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from histo_mlflow.learning.batches import TileSource
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.norms import draw_batches, estimate_norms, learning_norms
from histo_mlflow.learning.options import Recipe
from histo_mlflow.learning.ranks import ALONE
from histo_mlflow.models.backbones import DEFAULT_BACKBONE
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.options import build
from histo_mlflow.tiles.tile_set import TileSet

pytestmark = pytest.mark.usefixtures("small_network")

CPU = Compute(torch.device("cpu"), is_bf16=False)
ALL_AT_ONCE = [np.arange(54)]
UNEQUAL = [np.arange(20), np.arange(20, 23), np.arange(23, 54)]


@pytest.fixture
def network() -> TileClassifier:
    """In evaluation mode, with batch norms that have scales and shifts, and statistics of nothing."""
    seed_everything(0)
    network = TileClassifier(n_classes=9, tile_size_px=32)
    for norm in _norms(network).values():
        nn.init.normal_(norm.weight, 1, 0.2)
        nn.init.normal_(norm.bias, 0, 0.2)
    return network.eval()


def _norms(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


def _estimate(
    network: nn.Module, tiles: TileSet, batches: Sequence[NDArray[np.int64]], compute: Compute = CPU, but: str = ""
) -> None:
    names = [name for name in _norms(network) if name != but]
    estimate_norms(network, names, TileSource(tiles.images, CPU.device), batches, compute, ALONE)


@pytest.mark.parametrize("backbone", [DEFAULT_BACKBONE, "timm:mobilenetv3_small_050"])  # whose norms hold activations too
def test_of_one_batch_they_are_what_torch_sees_of_it(tiny_tiles: TileSet, backbone: str) -> None:
    network = TileClassifier(n_classes=9, tile_size_px=32, backbone=backbone).eval()
    expected = copy.deepcopy(network)
    for norm in _norms(expected).values():
        norm.train()
        norm.momentum = 1.0
    expected(torch.from_numpy(tiny_tiles.images.copy()))
    _estimate(network, tiny_tiles, ALL_AT_ONCE)
    assert len(_norms(network)) > 5
    for name, norm in _norms(network).items():
        other = _norms(expected)[name]
        torch.testing.assert_close(norm.running_mean, other.running_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, other.running_var, rtol=1e-4, atol=1e-6)


def test_of_batches_they_are_those_of_all_that_a_norm_has_seen(network: TileClassifier, tiny_tiles: TileSet) -> None:
    """Pooled, which a mean of variances is not."""
    seen: dict[str, list[Tensor]] = {name: [] for name in _norms(network)}

    def note(name: str) -> Any:
        return lambda _, inputs: seen[name].append(inputs[0].detach().double())

    hooks = [norm.register_forward_pre_hook(note(name)) for name, norm in _norms(network).items()]
    _estimate(network, tiny_tiles, UNEQUAL)
    for hook in hooks:
        hook.remove()
    for name, norm in _norms(network).items():
        assert [len(each) for each in seen[name]] == [20, 3, 31]
        variance, mean = torch.var_mean(torch.cat(seen[name]), dim=(0, 2, 3))
        torch.testing.assert_close(norm.running_mean, mean.float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variance.float(), rtol=1e-4, atol=1e-6)


def test_nothing_else_changes_and_chance_has_no_part(network: TileClassifier, tiny_tiles: TileSet) -> None:
    assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
    before, random_state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    _estimate(network, tiny_tiles, UNEQUAL)
    after = copy.deepcopy(network.state_dict())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module.training for module in network.modules())
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{name}.{kind}" for name in _norms(network) for kind in ("running_mean", "running_var")}
    _estimate(network, tiny_tiles, UNEQUAL)  # from other statistics, by which nothing normalises
    assert all(torch.equal(tensor, after[name]) for name, tensor in network.state_dict().items())


def test_a_frozen_norm_keeps_its_statistics_and_uses_them(network: TileClassifier, tiny_tiles: TileSet) -> None:
    frozen, following = list(_norms(network))[:2]
    network.train()
    _norms(network)[frozen].eval()
    assert learning_norms(network) == [name for name in _norms(network) if name != frozen]
    network.eval()
    other = copy.deepcopy(network)
    _norms(other)[frozen].running_mean.fill_(5.0)
    for each in (network, other):
        kept = _norms(each)[frozen].running_mean.clone()
        _estimate(each, tiny_tiles, UNEQUAL, but=frozen)
        assert torch.equal(_norms(each)[frozen].running_mean, kept)
    assert not torch.allclose(_norms(network)[following].running_mean, _norms(other)[following].running_mean)


def test_a_network_without_batch_norm_costs_nothing(tiny_tiles: TileSet) -> None:
    network = nn.Sequential(nn.Flatten(), nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False)).train()
    assert learning_norms(network) == []
    unreadable = TileSource(tiny_tiles.images[:0], CPU.device)
    estimate_norms(network, [], unreadable, ALL_AT_ONCE, CPU, ALONE)


def test_in_bf16_they_are_nearly_those_of_fp32(network: TileClassifier, tiny_tiles: TileSet) -> None:
    coarse = copy.deepcopy(network)
    _estimate(network, tiny_tiles, UNEQUAL)
    _estimate(coarse, tiny_tiles, UNEQUAL, compute=Compute(torch.device("cpu"), is_bf16=True))
    for name, norm in _norms(network).items():
        other = _norms(coarse)[name]
        assert other.running_var.dtype == torch.float32
        torch.testing.assert_close(other.running_var, norm.running_var, rtol=0.1, atol=1e-3)


def test_a_draw_depends_on_seed_and_epoch_alone() -> None:
    train = _many(3000).part("train", np.arange(1000, 3000))

    def draw(seed: int, epoch: int) -> list[int]:
        recipe = build(Recipe, {"seed": seed})
        return np.concatenate(draw_batches(train, recipe, epoch=epoch)).tolist()

    drawn = draw(1, 2)
    assert len(set(drawn)) == len(drawn) == 300
    assert set(drawn) <= set(train.rows)
    assert drawn == draw(1, 2)
    assert drawn != draw(1, 3)
    assert drawn != draw(2, 2)


def _many(n_tiles: int) -> TileSet:
    images = np.broadcast_to(np.zeros((), np.uint8), (n_tiles, 32, 32, 3))
    return TileSet(images, np.zeros(n_tiles, np.int64), ("A", "B"), None, "nothing", "")


@pytest.mark.parametrize(("n_tiles", "n_drawn"), [(5, 5), (252, 128), (574, 128), (3000, 450), (18_000, 2048), (10**6, 2048)])
def test_a_draw_is_a_small_share_of_an_epoch(n_tiles: int, n_drawn: int) -> None:
    """Counted in tiles: 15 % of them, which a network passes forward only, or as many as an estimate needs at least."""
    part = _many(n_tiles).part("train", np.arange(n_tiles))
    for batch_size, most in ((32, 128), (4, 16)):
        batches = draw_batches(part, build(Recipe, {"batch_size": batch_size}), epoch=1)
        assert sum(map(len, batches)) == n_drawn
        assert max(map(len, batches)) <= most
        assert min(map(len, batches)) >= 2
