"""What a head sees: features, their views, and by what a backbone is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.feature_file import FeatureFacts, FeatureWriter, map_features
from histo_mlflow.models.features import AS_STORED, FeatureNetwork, View, digest_backbone, set_head

FACTS = FeatureFacts("torchvision:resnet18", "a" * 64, "b" * 64, 32, "none", str(AS_STORED), "fp32")


@pytest.fixture
def network() -> TileClassifier:
    torch.manual_seed(0)
    return TileClassifier(n_classes=3, tile_size_px=32, backbone="torchvision:resnet18").eval()


def _tiles(n: int = 4) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v3_small", "torchvision:convnext_tiny"])
def test_features_are_what_the_last_layer_makes_logits_of(name: str) -> None:
    network = TileClassifier(n_classes=3, tile_size_px=32, backbone=name).eval()
    with torch.inference_mode():
        features, logits = network.features(_tiles()), network(_tiles())
        assert torch.equal(functional.linear(features, network.head.weight, network.head.bias), logits)
    assert features.shape == (4, network.n_features)
    assert not network.head._forward_pre_hooks


def test_the_eight_views_of_a_tile_all_differ_and_are_those_of_numpy(network: TileClassifier) -> None:
    tiles = _tiles(2)
    views = [View(turns, is_mirrored) for turns in range(4) for is_mirrored in (False, True)]
    seen = {view: view.of(tiles).numpy() for view in views}
    assert len({image.tobytes() for image in seen.values()}) == len({str(view) for view in views}) == 8
    for view, images in seen.items():
        expected = tiles.numpy()[:, :, ::-1] if view.is_mirrored else tiles.numpy()
        np.testing.assert_array_equal(images, np.rot90(expected, view.quarter_turns, axes=(1, 2)))
    with torch.inference_mode():
        turned = FeatureNetwork(network, View(1, True))(tiles)
        torch.testing.assert_close(turned, network.features(View(1, True).of(tiles)))


def test_a_backbone_is_known_by_every_weight_but_the_heads(network: TileClassifier) -> None:
    before = digest_backbone(network)
    set_head(network, np.ones((3, network.n_features)), np.ones(3))
    network.backbone.bn1.num_batches_tracked += 1
    assert digest_backbone(network) == before
    with torch.no_grad():
        network.backbone.bn1.running_mean[0] += 1e-6
    assert digest_backbone(network) != before


def test_rows_that_are_not_finished_are_written_again(tmp_path: Path) -> None:
    file, rows = tmp_path / "a.h5", np.arange(20, dtype=np.float32).reshape(5, 4)
    writer = FeatureWriter(file, (5, 4), FACTS)
    writer.append(rows[:2])
    with file.open("r+b") as opened:  # what a kill leaves of the next block
        opened.seek(writer._offset + 2 * 16)
        opened.write(rows[2:3].tobytes()[:9])
    again = FeatureWriter(file, (5, 4), FACTS)
    assert again.n_finished == 2
    again.append(rows[2:])
    again.close()
    np.testing.assert_array_equal(map_features(file, (5, 4), FACTS), rows)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize(
    "what", ["other facts", "other shape", "cut", "no features", "no HDF5", "odd count", "count too large"]
)
def test_a_draft_that_is_not_for_these_rows_is_begun_anew(tmp_path: Path, what: str) -> None:
    file = tmp_path / "a.h5"
    facts = FeatureFacts(**{**vars(FACTS), "view": "another"}) if what == "other facts" else FACTS
    writer = FeatureWriter(file, (6, 4) if what == "other shape" else (5, 4), facts)
    writer.append(np.ones((2, 4), np.float32))
    if what == "cut":
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size - 1)
    elif what.startswith("no "):
        file.write_bytes(b"" if what == "no HDF5" else b"\x89HDF\r\n\x1a\n" + bytes(100))
    elif "count" in what:
        file.with_suffix(".progress").write_text("[2" if what == "odd count" else "6")
    assert FeatureWriter(file, (5, 4), FACTS).n_finished == 0
    if what != "odd count":
        assert map_features(file, (5, 4), FACTS).shape == (5, 4)


def test_a_file_that_is_not_whole_or_of_others_is_not_mapped(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    FeatureWriter(file, (5, 4), FACTS)
    for shape, facts in (((4, 5), FACTS), ((5, 4), FeatureFacts(**{**vars(FACTS), "tiles_sha256": "c" * 64}))):
        with pytest.raises(ValueError, match="holds"):
            map_features(file, shape, facts)
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 1)
    with pytest.raises((ValueError, OSError), match=r"whole|truncated"):
        map_features(file, (5, 4), FACTS)
