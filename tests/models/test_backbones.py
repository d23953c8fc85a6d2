"""What every backbone must do, whatever it is made of: those here and in later sources run through the same tests."""

import copy
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import save_for_hf

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.fit import fit
from histo_mlflow.learning.grad_cam import grad_cam
from histo_mlflow.learning.infer import infer
from histo_mlflow.learning.options import Recipe
from histo_mlflow.models import backbones
from histo_mlflow.models.backbones import DEFAULT_BACKBONE, find_backbone
from histo_mlflow.models.checkpoint import load_weights, save_weights
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.features import digest_backbone
from histo_mlflow.models.model import Model
from histo_mlflow.models.weights import adopt_weights, make_network, read_initial_weights
from histo_mlflow.options import build
from histo_mlflow.pipeline.features import stored_features
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.splits import Split
from tests.conftest import PROJECT

SIZE_PX = 64
CLASSES = ("a", "b", "c")
CPU = Compute(torch.device("cpu"), is_bf16=False)
TIMM = ("resnet10t", "convnext_atto", "vit_tiny_patch16_224", "efficientnet_lite0", "mobilenetv3_small_050")
BACKBONES = (
    DEFAULT_BACKBONE, "torchvision:resnet18", "torchvision:mobilenet_v3_small", *(f"timm:{name}" for name in TIMM), "lite0",
    "hub", "graph.pt2", "graph.pt",
)  # fmt: skip
"""The last three are made here: a folder as timm writes it for the hub, and files with a network."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbones")


@pytest.fixture(scope="module", params=BACKBONES)
def network(request: pytest.FixtureRequest, folder: Path) -> TileClassifier:
    """One whose batch norms have statistics other than 0 and 1."""
    torch.manual_seed(0)
    made = TileClassifier(n_classes=len(CLASSES), tile_size_px=SIZE_PX, backbone=_name_of(request.param, folder))
    with torch.no_grad():
        made(torch.from_numpy(_tiles(8)))
    return made.eval()


def _name_of(kind: str, folder: Path) -> str:
    if kind == "hub":
        save_for_hf(timm.create_model("resnet10t", num_classes=7), folder / "hub", model_config={}, safe_serialization=True)
        return f"hub:{folder / 'hub'}"
    return str(write_graph(folder / kind)) if kind.startswith("graph") else kind


def write_graph(file: Path, **facts: object) -> Path:
    """Write an encoder of 64 features to `file`, and its facts beside it."""
    torch.manual_seed(1)
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 7, 4), torch.nn.BatchNorm2d(64), torch.nn.GELU())
    encoder.append(torch.nn.AdaptiveAvgPool2d(1)).append(torch.nn.Flatten()).eval()
    example = torch.zeros((2, 3, SIZE_PX, SIZE_PX))
    if file.suffix == ".pt2":
        sizes = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
        torch.export.save(torch.export.export(encoder, (example,), dynamic_shapes=(sizes,)), file)
    else:
        torch.jit.trace(encoder, example).save(str(file))
    known = {"size_px": SIZE_PX, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "licence": "MIT", "may_be_passed_on": True}
    file.with_suffix(".json").write_text(json.dumps(known | facts))
    return file


def _tiles(n: int, size_px: int = SIZE_PX) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8)


def _facts(network: TileClassifier) -> ModelFacts:
    return ModelFacts(CLASSES, SIZE_PX, "0" * 64, is_synthetic=True, backbone=network.backbone_name, epoch=1, val_loss=0.5)


def test_it_is_known_by_its_facts(network: TileClassifier) -> None:
    known = find_backbone(network.backbone_name)
    assert known.name == network.backbone_name
    assert len(known.pixels.mean) == len(known.pixels.std) == 3
    assert known.pixels.interpolation in network.describe_preprocessing()
    assert known.weights is not None
    assert all((known.weights.url, known.weights.place, known.weights.words, known.weights.licence.words))
    shapes = {name: tensor.shape for name, tensor in network.backbone.state_dict().items()}
    assert {name: tensor.shape for name, tensor in known.outline(len(CLASSES), SIZE_PX).items()} == shapes
    assert shapes[f"{known.head}.weight"] == (len(CLASSES), known.n_features)


def test_features_are_what_goes_into_the_head(network: TileClassifier) -> None:
    tiles = torch.from_numpy(_tiles(4))
    with torch.inference_mode():
        features = network.features(tiles)
        torch.testing.assert_close(network.head(features), network(tiles))
    assert features.shape == (4, network.n_features)
    assert network.n_features == find_backbone(network.backbone_name).n_features


def test_kept_features_are_its_own(network: TileClassifier, work: Path) -> None:
    tiles = draw_demo(n_tiles=12, tile_size_px=SIZE_PX)
    kept = stored_features(network, tiles, CPU)
    with torch.inference_mode():
        direct = network.features(torch.from_numpy(np.array(tiles.images))).numpy()
    np.testing.assert_allclose(kept, direct, rtol=1e-5, atol=1e-5 * float(np.abs(direct).max()))


def test_a_file_with_another_network_has_other_features(tmp_path: Path) -> None:
    """What a file computes is not among its weights."""
    file, digests = write_graph(tmp_path / "graph.pt"), []
    for content in (file.read_bytes(), file.read_bytes() + b" "):
        file.write_bytes(content)
        network = TileClassifier(n_classes=2, tile_size_px=SIZE_PX, backbone=str(file))
        digests.append(digest_backbone(network))
    assert digests[0] != digests[1]


def test_the_same_seed_builds_the_same(network: TileClassifier) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(TileClassifier(n_classes=4, tile_size_px=SIZE_PX, backbone=network.backbone_name).state_dict())
    assert all(torch.equal(tensor, made[1][name]) for name, tensor in made[0].items())
    head = f"backbone.{find_backbone(network.backbone_name).head}.weight"
    assert not torch.equal(made[0][head][:3], network.state_dict()[head]), "another seed draws others"


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


def test_a_training_goes_on_bit_for_bit(network: TileClassifier) -> None:
    """One epoch, its state, and another epoch, against two in one go; judged in between, which must leave no trace."""
    tiles = draw_demo(n_tiles=18, tile_size_px=SIZE_PX)
    split = Split.of(tiles, np.arange(9), np.arange(9, 18))
    recipe = build(Recipe, {"device": "cpu", "precision": "fp32", "epochs": 2, "batch_size": 5})
    states: list[dict[str, Any]] = []

    def learn(**more: Any) -> dict[str, torch.Tensor]:
        seed_everything(0)
        learning = TileClassifier(n_classes=9, tile_size_px=SIZE_PX, backbone=network.backbone_name)
        fit(learning, split, recipe, on_epoch=lambda report: states.append(copy.deepcopy(dict(report.state))), **more)
        return learning.state_dict()

    whole = learn()
    again = learn(resume=states[0])
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


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


def test_the_evidence_in_a_tile_can_be_asked_for_where_there_are_maps(network: TileClassifier) -> None:
    if network.pooling is None:
        assert network.backbone_name.startswith("timm:vit") or "graph" in network.backbone_name
        return
    maps = grad_cam(network, _tiles(2), np.array([0, 1]), device=torch.device("cpu"))
    assert maps.shape == (2, SIZE_PX, SIZE_PX)


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_b3", "elsewhere:net", "torchvision:no_such_net", "torchvision:inception_v3", "timm:no_such_net",
        "timm:resnet10t.no_such_tag", "lite0:other", "hub", "os:path", "no_such_file.pt2",
    ],
)  # fmt: skip
def test_an_unknown_backbone_is_refused_by_name(name: str) -> None:
    with pytest.raises(OptionError, match=f"backbone={name}"):
        find_backbone(name)


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "timm:deit_tiny_distilled_patch16_224"])
def test_a_network_without_a_linear_head_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="does not end in a linear layer"):
        find_backbone(name)


def test_the_default_is_resized_as_it_always_was_and_others_as_their_weights_were() -> None:
    assert find_backbone(DEFAULT_BACKBONE).pixels.interpolation == "bilinear"
    assert find_backbone("torchvision:swin_t").pixels.interpolation == "bicubic"
    known = find_backbone("timm:vit_tiny_patch16_224")
    assert (known.pixels.size_px, known.pixels.mean, known.pixels.interpolation) == (224, (0.5, 0.5, 0.5), "bicubic")


def test_bicubic_resizing_is_that_of_pillow() -> None:
    class Seen(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            self.pixels = pixels
            return pixels.mean((2, 3))

    network = TileClassifier(n_classes=2, tile_size_px=32, backbone="timm:convnext_atto")
    network.backbone = seen = Seen()
    # Between its two passes Pillow rounds to whole numbers from 0 to 255, which only tiles without extremes outlast.
    tile = 40 + _tiles(1, 48) // 2
    network(torch.from_numpy(tile))
    pixels = (seen.pixels - network.shift) / network.scale
    expected = np.asarray(Image.fromarray(tile[0]).resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float32)
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0), expected, atol=1.01)


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "torchvision:vit_b_16"])
def test_weights_of_one_size_start_a_transformer_of_another(name: str, tmp_path: Path) -> None:
    known = find_backbone(name)
    torch.manual_seed(0)
    save_file(known.build(5, 224).state_dict(), tmp_path / "published.safetensors")
    initial = read_initial_weights(str(tmp_path / "published.safetensors"), is_synthetic=False, backbone=name)
    network, note = make_network(initial, classes=CLASSES, tile_size_px=SIZE_PX)
    assert "its head for 5 classes is replaced" in note
    assert network(torch.from_numpy(_tiles(2))).shape == (2, 3)
    kept = [own for own, tensor in network.backbone.state_dict().items() if torch.equal(tensor, initial.tensors[own])]
    changed = network.backbone.state_dict().keys() - set(kept)
    assert {own.rpartition(".")[2] for own in changed} <= {"pos_embed", "pos_embedding", "weight", "bias"}
    assert {own for own in changed if "pos_embed" not in own} <= {f"{known.head}.weight", f"{known.head}.bias"}


def test_a_file_with_a_network_keeps_its_weights_and_must_have_facts(tmp_path: Path) -> None:
    file = write_graph(tmp_path / "encoder.pt2")
    initial = read_initial_weights("auto", is_synthetic=True, backbone=str(file))
    network, note = make_network(initial, classes=CLASSES, tile_size_px=SIZE_PX)
    assert note == f"the network in {file}"
    assert len(initial.sha256) == 64
    with torch.inference_mode():
        pixels = torch.rand(2, 3, SIZE_PX, SIZE_PX)
        expected = torch.export.load(file).module()(pixels)
        torch.testing.assert_close(network.backbone.graph(pixels), expected)
    file.with_suffix(".json").write_text('{"size_px": 64, "mean": [0.5], "std": [0.5]}')
    find_backbone.cache_clear()
    with pytest.raises(OptionError, match="mean and std must have 3 numbers"):
        find_backbone(str(file))
    file.with_suffix(".json").unlink()
    with pytest.raises(OptionError, match=r"can't read its facts in .*encoder\.json"):
        find_backbone(str(file))


def test_a_program_that_would_unpickle_objects_is_refused(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "ran"),))  # type: ignore[return-value]

    good, file = write_graph(tmp_path / "good.pt2"), tmp_path / "bad.pt2"
    file.with_suffix(".json").write_text(good.with_suffix(".json").read_text())
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile(file, "w") as other:
        for name in archive.namelist():
            content = archive.read(name)
            other.writestr(name, pickle.dumps(Payload()) if "/sample_inputs/" in name else content)
    with pytest.raises(OptionError, match=r"bad\.pt2 can't be read"):
        find_backbone(str(file))
    assert not (tmp_path / "ran").exists()


def test_the_source_that_the_docs_show_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = (PROJECT / "docs" / "backbones.md").read_text().split("```python\n")
    (tmp_path / "tiny.py").write_text(next(code for code in shown if '"""``tiny:' in code).partition("```")[0])
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "histo_mlflow.models.backbones.tiny", None)
    del sys.modules["histo_mlflow.models.backbones.tiny"]
    network = TileClassifier(n_classes=3, tile_size_px=SIZE_PX, backbone="tiny:8")
    assert network(torch.from_numpy(_tiles(2))).shape == (2, 3)
    assert find_backbone("tiny:8").n_features == 8
    with pytest.raises(OptionError, match="give a width"):
        find_backbone("tiny:wide")
    with pytest.raises(OptionError, match="nobody has published any of tiny:8"):
        read_initial_weights("imagenet", is_synthetic=True, backbone="tiny:8")
