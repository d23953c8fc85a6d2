import numpy as np
import pytest
import torch

from histo_mlflow.learning.augmentation import Flip, Rotate, StainJitter, Transform
from histo_mlflow.tiles.demo import draw_demo


def _tile() -> torch.Tensor:
    """A tile of which all eight symmetries differ."""
    return torch.arange(4 * 4 * 3, dtype=torch.uint8).reshape(1, 4, 4, 3)


def _symmetries() -> list[torch.Tensor]:
    turns = [_tile().rot90(k, (1, 2)) for k in range(4)]
    return turns + [turn.flip(2) for turn in turns]


def _which(tile: torch.Tensor) -> int:
    return next(k for k, symmetry in enumerate(_symmetries()) if torch.equal(tile, symmetry[0]))


def _changed(transform: Transform, tiles: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return transform.apply(tiles, transform.draw(len(tiles), torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(("transform", "expected"), [(Flip(), {0, 2, 4, 6}), (Rotate(), {0, 1, 2, 3})])
def test_each_tile_is_drawn_on_its_own_and_evenly(transform: Transform, expected: set[int]) -> None:
    n = 4000
    out = _changed(transform, _tile().expand(n, -1, -1, -1))
    counts = torch.bincount(torch.tensor([_which(tile) for tile in out]), minlength=8)
    assert set(torch.nonzero(counts).flatten().tolist()) == expected
    # Four equal shares: n/4 with a standard deviation of 27, so five of them.
    assert all(abs(counts[k].item() - n / 4) < 140 for k in expected)
    assert out.dtype == torch.uint8


@pytest.fixture(scope="module")
def tissue_like() -> torch.Tensor:
    return torch.from_numpy(draw_demo(n_tiles=18, tile_size_px=48).images.copy())


def test_stain_jitter_of_no_strength_changes_nothing(tissue_like: torch.Tensor) -> None:
    assert torch.equal(_changed(StainJitter(0.0), tissue_like), tissue_like)


def test_stain_jitter_is_what_its_formula_says(tissue_like: torch.Tensor) -> None:
    """Against scalar arithmetic for one pixel: densities, three stains, factors and offsets, and back."""
    drawn = torch.tensor([[[1.1, 0.9, 1.0], [0.02, -0.03, 0.01]]])
    out = StainJitter(0.1).apply(tissue_like[:1], drawn)[0, 3, 5].tolist()
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    density = -np.log10((tissue_like[0, 3, 5].numpy().astype(float) + 1) / 256)
    amounts = np.linalg.solve(stains.T, density)
    expected = 256 * 10 ** -((amounts * [1.1, 0.9, 1.0] + [0.02, -0.03, 0.01]) @ stains) - 1
    assert out == np.clip(np.round(expected), 0, 255).tolist()


def test_stain_jitter_differs_from_tile_to_tile_and_grows_with_sigma(tissue_like: torch.Tensor) -> None:
    same = tissue_like[:1].expand(18, -1, -1, -1)
    light, strong = (_changed(StainJitter(sigma), same).float() for sigma in (0.05, 0.2))
    assert len({tuple(tile.flatten().tolist()) for tile in light}) == 18
    assert 1 < (light - same).abs().mean() < (strong - same).abs().mean() < 60
