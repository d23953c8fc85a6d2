"""What every backbone must do, whatever it is made of: those here and in later sources run through the same tests."""

from pathlib import Path

import numpy as np
import pytest
import torch

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.grad_cam import grad_cam
from histo_mlflow.learning.infer import infer
from histo_mlflow.models.backbones import DEFAULT_BACKBONE, find_backbone
from histo_mlflow.models.checkpoint import load_weights, save_weights
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.model import Model
from histo_mlflow.models.weights import adopt_weights, make_network

SIZE_PX = 64
CLASSES = ("a", "b", "c")
CPU = Compute(torch.device("cpu"), is_bf16=False)


@pytest.fixture(scope="module", params=[DEFAULT_BACKBONE, "torchvision:resnet18", "torchvision:mobilenet_v3_small"])
def network(request: pytest.FixtureRequest) -> TileClassifier:
    """One whose batch norms have statistics other than 0 and 1."""
    torch.manual_seed(0)
    made = TileClassifier(n_classes=len(CLASSES), tile_size_px=SIZE_PX, backbone=request.param)
    with torch.no_grad():
        made(torch.from_numpy(_tiles(8)))
    return made.eval()


def _tiles(n: int, size_px: int = SIZE_PX) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8)


def _facts(network: TileClassifier) -> ModelFacts:
    return ModelFacts(CLASSES, SIZE_PX, "0" * 64, is_synthetic=True, backbone=network.backbone_name, epoch=1, val_loss=0.5)


def test_it_is_known_by_its_facts(network: TileClassifier) -> None:
    known = find_backbone(network.backbone_name)
    assert known.name == network.backbone_name
    assert len(known.mean) == len(known.std) == 3
    assert known.url.startswith("https://")
    assert known.weights
    assert known.licence
    shapes = {name: tensor.shape for name, tensor in network.backbone.state_dict().items()}
    assert {name: tensor.shape for name, tensor in known.outline(len(CLASSES)).items()} == shapes
    assert shapes[f"{known.head}.weight"][0] == len(CLASSES)


def test_looking_at_a_backbone_draws_nothing(network: TileClassifier) -> None:
    before = torch.get_rng_state()
    find_backbone.cache_clear()
    assert find_backbone(network.backbone_name).head
    assert torch.equal(torch.get_rng_state(), before)


def test_tiles_of_any_size_become_logits_and_folding_leaves_them(network: TileClassifier) -> None:
    for size_px in (SIZE_PX, 50):
        tiles = _tiles(4, size_px)
        with torch.inference_mode():
            logits = network(torch.from_numpy(tiles))
        assert logits.shape == (4, network.n_classes)
        np.testing.assert_allclose(infer(network, tiles, compute=CPU, description=None), logits, rtol=1e-3, atol=1e-3)


def test_every_weight_learns(network: TileClassifier) -> None:
    learning = TileClassifier(n_classes=2, tile_size_px=SIZE_PX, backbone=network.backbone_name).train()
    torch.nn.functional.cross_entropy(learning(torch.from_numpy(_tiles(4))), torch.tensor([0, 1, 0, 1])).backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in learning.parameters())


def test_a_checkpoint_brings_it_back(network: TileClassifier, tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", network, _facts(network))
    again, facts = load_weights(tmp_path / "a.safetensors")
    assert facts == _facts(network)
    with torch.inference_mode():
        assert torch.equal(again(torch.from_numpy(_tiles(2))), network(torch.from_numpy(_tiles(2))))


def test_its_weights_start_another_head(network: TileClassifier) -> None:
    initial = adopt_weights(network, _facts(network), origin="here")
    wider, note = make_network(initial, classes=(*CLASSES, "d"), tile_size_px=SIZE_PX)
    head = find_backbone(network.backbone_name).head
    assert "a b c taken over and d new" in note
    assert wider.backbone_name == network.backbone_name
    for name, tensor in network.backbone.state_dict().items():
        found = wider.backbone.state_dict()[name]
        assert torch.equal(found[: len(CLASSES)] if name.startswith(head) else found, tensor), name


@pytest.mark.slow
def test_an_exported_graph_says_the_same_and_is_unpacked(network: TileClassifier) -> None:
    example = torch.zeros((2, SIZE_PX + 2, SIZE_PX + 5, 3), dtype=torch.uint8)
    sizes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}
    exported = torch.export.export(network, (example,), dynamic_shapes={"tiles": sizes}).module()
    tiles = torch.from_numpy(_tiles(3, 50))
    again = Model(exported, _facts(network), "here").unpacked().eval()
    with torch.inference_mode():
        torch.testing.assert_close(exported(tiles), network(tiles), rtol=1e-3, atol=1e-3)
        assert torch.equal(again(tiles), network(tiles))


def test_the_evidence_in_a_tile_can_be_asked_for(network: TileClassifier) -> None:
    maps = grad_cam(network, _tiles(2), np.array([0, 1]), device=torch.device("cpu"))
    assert maps.shape == (2, SIZE_PX, SIZE_PX)


@pytest.mark.parametrize("name", ["efficientnet_b3", "elsewhere:net", "torchvision:no_such_net", "torchvision:inception_v3"])
def test_an_unknown_backbone_is_refused_by_name(name: str) -> None:
    with pytest.raises(OptionError, match=f"backbone={name}"):
        find_backbone(name)


def test_a_network_without_a_linear_head_is_refused() -> None:
    with pytest.raises(OptionError, match="does not end in a linear layer"):
        TileClassifier(n_classes=2, tile_size_px=SIZE_PX, backbone="torchvision:squeezenet1_1").n_classes  # noqa: B018
