import numpy as np
import pytest
import torch
from torchvision.models import EfficientNet_B3_Weights, efficientnet_b3
from torchvision.transforms import functional

from histo_mlflow.learning.compute import seed_everything
from histo_mlflow.models.classifier import TileClassifier, fold_batch_norms


def _network(size_px: int) -> TileClassifier:
    seed_everything(0)
    return TileClassifier(n_classes=9, tile_size_px=size_px).eval()


def test_preprocessing_is_torchvisions_own() -> None:
    """The same tiles through torchvision's resize, scaling and normalisation and its bare network."""
    network = _network(32)
    bare = efficientnet_b3(num_classes=9).eval()
    bare.load_state_dict(network.backbone.state_dict())
    tiles = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)

    reference = EfficientNet_B3_Weights.IMAGENET1K_V1.transforms()
    pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2).float()
    pixels = functional.resize(pixels, [32, 32], antialias=True) / 255
    pixels = functional.normalize(pixels, reference.mean, reference.std)
    with torch.inference_mode():
        torch.testing.assert_close(network(torch.from_numpy(tiles)), bare(pixels), rtol=1e-4, atol=1e-4)


def test_tiles_of_the_right_size_are_not_touched_by_the_resize() -> None:
    network = _network(32)
    tiles = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        plain = network.backbone(tiles.permute(0, 3, 1, 2) * network.scale + network.shift)
        assert torch.equal(network(tiles), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_other_types_than_uint8_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(RuntimeError, match="dtype"):
        _network(32)(torch.zeros((1, 32, 32, 3), dtype=dtype))


def test_residual_branches_start_at_zero_so_blocks_start_as_identity() -> None:
    block = next(block for block in _network(32).backbone.modules() if getattr(block, "use_res_connect", False))
    features = torch.randn(1, block.block[0][0].in_channels, 8, 8)
    with torch.inference_mode():
        assert torch.equal(block(features), features)


def test_folded_batch_norms_give_the_same_logits() -> None:
    torch.manual_seed(0)
    network = TileClassifier(n_classes=3, tile_size_px=32)
    tiles = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    for _ in range(3):
        network(tiles)  # statistics other than 0 and 1
    network.eval()
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()), "the original stays"
    with torch.inference_mode():
        torch.testing.assert_close(folded(tiles), network(tiles), atol=1e-4, rtol=1e-4)
    assert fold_batch_norms(folded) is folded
