"""Random changes of uint8 batches that leave a tile a valid tile, each in its own window of epochs.

Tissue has no up and no left, so the eight symmetries of the square keep a tile's class; multiples of a right angle need no
interpolation and leave every pixel value as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from histo_mlflow.errors import OptionError

Transform = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class AugmentationOptions:
    """When augmentation acts."""

    aug_cutoff: int = field(
        default=12,
        metadata={"help": "Last epoch with augmentation; 0 for never. Flips from epoch 1, rotations in the later half."},
    )

    def __post_init__(self) -> None:
        if self.aug_cutoff < 0:
            raise OptionError(f"aug_cutoff={self.aug_cutoff}: must be 0 (never) or the last augmented epoch")


@dataclass(frozen=True)
class ScheduledTransform:
    """A transform that acts from `first_epoch` to `last_epoch`, both included and counted from 1."""

    transform: Transform
    first_epoch: int
    last_epoch: int


def schedule(options: AugmentationOptions) -> tuple[ScheduledTransform, ...]:
    """Return the original work's windows: flips in epochs 1 to `aug_cutoff`, rotations in the later half of that window."""
    cutoff = options.aug_cutoff
    return (ScheduledTransform(flip, 1, cutoff), ScheduledTransform(rotate, cutoff // 2 + 1, cutoff))


def augment(tiles: Tensor, *, epoch: int, transforms: tuple[ScheduledTransform, ...], generator: torch.Generator) -> Tensor:
    """Return `tiles` ``(n_tiles, size, size, 3)`` uint8 after every transform whose window holds `epoch`."""
    for scheduled in transforms:
        if scheduled.first_epoch <= epoch <= scheduled.last_epoch:
            tiles = scheduled.transform(tiles, generator)
    return tiles


def flip(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each tile left-right and upside down, each with probability 1/2, each tile drawn on its own."""
    for dim in (1, 2):
        tiles = _where(_draw(2, tiles, generator) == 1, tiles.flip(dim), tiles)
    return tiles


def rotate(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each tile by 0, 90, 180 or 270 degrees with equal probability, each tile drawn on its own."""
    turns = _draw(4, tiles, generator)
    tiles = _where(turns >= 2, tiles.rot90(2, (1, 2)), tiles)
    return _where(turns % 2 == 1, tiles.rot90(1, (1, 2)), tiles)


def _draw(n_choices: int, tiles: Tensor, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU, so that one saved generator state gives the same tiles on every device.
    return torch.randint(n_choices, (len(tiles),), generator=generator).to(tiles.device, non_blocking=True)


def _where(chosen: Tensor, changed: Tensor, tiles: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], changed, tiles)
