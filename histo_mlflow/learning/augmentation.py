"""Which random change acts in which epochs; the reasons and the measured effect of each are in docs/augmentation.md."""

from dataclasses import dataclass

import torch
from torch import Tensor

from histo_mlflow.learning.options import AugmentationOptions
from histo_mlflow.learning.transforms import Flip, Rotate, StainJitter, Transform


@dataclass(frozen=True)
class ScheduledTransform:
    """A transform that acts from `first_epoch` to `last_epoch`, both included and counted from 1."""

    transform: Transform
    first_epoch: int
    last_epoch: int


def schedule(options: AugmentationOptions) -> tuple[ScheduledTransform, ...]:
    """Return the transforms with their windows."""
    windows = options.windows()
    # Colour last: flips and rotations move pixels, and stain changes what they show.
    transforms: dict[str, Transform] = {"flips": Flip(), "rotations": Rotate(), "stain": StainJitter(options.stain_sigma)}
    return tuple(ScheduledTransform(transform, *windows[name]) for name, transform in transforms.items())


def draw_changes(
    n_tiles: int, *, epoch: int, transforms: tuple[ScheduledTransform, ...], generator: torch.Generator
) -> list[tuple[Transform, Tensor]]:
    """Return what happens to each of `n_tiles` tiles in `epoch`: the transforms whose window holds it, with what they drew."""
    return [
        (scheduled.transform, scheduled.transform.draw(n_tiles, generator))
        for scheduled in transforms
        if scheduled.first_epoch <= epoch <= scheduled.last_epoch
    ]


def apply_changes(tiles: Tensor, changes: list[tuple[Transform, Tensor]], *, share: slice = slice(None)) -> Tensor:
    """Return `tiles` ``(n_tiles, size, size, 3)`` uint8, which are `share` of the batch that was drawn for, after `changes`."""
    for transform, drawn in changes:
        tiles = transform.apply(tiles, drawn[share].to(tiles.device, non_blocking=True))
    return tiles
