import pytest
import torch

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.augmentation import AugmentationOptions, augment, flip, rotate, schedule


def _tile() -> torch.Tensor:
    """A tile of which all eight symmetries differ."""
    return torch.arange(4 * 4 * 3, dtype=torch.uint8).reshape(1, 4, 4, 3)


def _symmetries() -> list[torch.Tensor]:
    turns = [_tile().rot90(k, (1, 2)) for k in range(4)]
    return turns + [turn.flip(2) for turn in turns]


def _which(tile: torch.Tensor) -> int:
    return next(k for k, symmetry in enumerate(_symmetries()) if torch.equal(tile, symmetry[0]))


@pytest.mark.parametrize(("transform", "expected"), [(flip, {0, 2, 4, 6}), (rotate, {0, 1, 2, 3})])
def test_each_tile_is_drawn_on_its_own_and_evenly(transform, expected: set[int]) -> None:  # type: ignore[no-untyped-def]
    n = 4000
    out = transform(_tile().expand(n, -1, -1, -1), torch.Generator().manual_seed(0))
    counts = torch.bincount(torch.tensor([_which(tile) for tile in out]), minlength=8)
    assert set(torch.nonzero(counts).flatten().tolist()) == expected
    # Four equal shares: n/4 with a standard deviation of 27, so five of them.
    assert all(abs(counts[k].item() - n / 4) < 140 for k in expected)
    assert out.dtype == torch.uint8


def test_windows_are_those_of_the_original_work() -> None:
    flips, rotations = schedule(AugmentationOptions(12))
    assert (flips.transform, flips.first_epoch, flips.last_epoch) == (flip, 1, 12)
    assert (rotations.transform, rotations.first_epoch, rotations.last_epoch) == (rotate, 7, 12)


@pytest.mark.parametrize(("epoch", "changes"), [(1, True), (12, True), (13, False), (20, False)])
def test_nothing_is_changed_outside_its_window(epoch: int, changes: bool) -> None:
    tiles = _tile().expand(64, -1, -1, -1)
    out = augment(tiles, epoch=epoch, transforms=schedule(AugmentationOptions(12)), generator=torch.Generator().manual_seed(0))
    assert torch.equal(out, tiles) is not changes


def test_cutoff_0_is_never_and_a_negative_one_is_refused() -> None:
    tiles = _tile().expand(8, -1, -1, -1)
    transforms = schedule(AugmentationOptions(0))
    assert all(
        torch.equal(augment(tiles, epoch=epoch, transforms=transforms, generator=torch.Generator()), tiles) for epoch in (1, 2)
    )
    with pytest.raises(OptionError, match="aug_cutoff=-1"):
        AugmentationOptions(-1)
