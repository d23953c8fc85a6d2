"""Random changes of uint8 batches that leave a tile a valid tile of its class, and in which epochs each acts.

Their reasons and the measured effect of each are in docs/augmentation.md. A change has two steps: `draw` takes the chance for a
whole batch from one generator on the CPU, so that a saved state of it gives the same changes on every device and however a
batch is shared among processes; `apply` makes the change where the tiles are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from histo_mlflow.learning.options import AugmentationOptions
from histo_mlflow.models.features import View


class Transform(Protocol):
    """One kind of change; each tile is drawn on its own."""

    def draw(self, n_tiles: int, generator: torch.Generator) -> Tensor:
        """Return what chance says of each tile, ``(n_tiles, ...)`` on the CPU."""

    def apply(self, tiles: Tensor, drawn: Tensor) -> Tensor:
        """Return ``(n_tiles, size, size, 3)`` uint8 after the change, with `drawn` on the device of `tiles`."""


@dataclass(frozen=True)
class Flip:
    """Mirror left-right and upside down, each with probability 1/2; no pixel value changes."""

    def draw(self, n_tiles: int, generator: torch.Generator) -> Tensor:
        """Return ``(n_tiles, 2)``, 1 for a mirrored axis."""
        return torch.randint(2, (n_tiles, 2), generator=generator)

    def apply(self, tiles: Tensor, drawn: Tensor) -> Tensor:
        """Return the mirrored tiles."""
        for axis in (0, 1):
            tiles = _where(drawn[:, axis] == 1, tiles.flip(axis + 1), tiles)
        return tiles


@dataclass(frozen=True)
class Rotate:
    """Turn by 0, 90, 180 or 270 degrees with equal probability; needs no interpolation, so no pixel value changes."""

    def draw(self, n_tiles: int, generator: torch.Generator) -> Tensor:
        """Return ``(n_tiles,)`` quarter turns."""
        return torch.randint(4, (n_tiles,), generator=generator)

    def apply(self, tiles: Tensor, drawn: Tensor) -> Tensor:
        """Return the turned tiles."""
        tiles = _where(drawn >= 2, tiles.rot90(2, (1, 2)), tiles)
        return _where(drawn % 2 == 1, tiles.rot90(1, (1, 2)), tiles)


# Optical densities of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston 2001).
_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


@dataclass(frozen=True)
class StainJitter:
    """Change the amount and the base of each stain, as other laboratories' staining does.

    HED jitter after Tellez et al. 2019, "Quantifying the effects of data augmentation and stain color normalization in
    convolutional neural networks for computational pathology": in the space of haematoxylin, eosin and DAB each channel becomes
    ``a * s + b``, a from U(1 - sigma, 1 + sigma), b from U(-sigma, sigma). Its "light" variant has a sigma of 0.05, the strong
    one 0.2. Densities are decadic.
    """

    sigma: float

    def draw(self, n_tiles: int, generator: torch.Generator) -> Tensor:
        """Return ``(n_tiles, 2, 3)``: factors and offsets of the three stains."""
        noise = (2 * torch.rand((n_tiles, 2, 3), generator=generator) - 1) * self.sigma
        return noise + torch.tensor([[1.0], [0.0]])

    def apply(self, tiles: Tensor, drawn: Tensor) -> Tensor:
        """Return the restained tiles."""
        stains = torch.tensor(_STAINS, device=tiles.device)
        # Unmixing, jitter and mixing again are one affine map of densities for each tile.
        matrix = torch.linalg.inv(stains) @ torch.diag_embed(drawn[:, 0]) @ stains
        offset = drawn[:, 1:] @ stains
        n, height, width, _ = tiles.shape
        density = -torch.log10((tiles.reshape(n, height * width, 3).float() + 1) / 256)
        changed = torch.pow(10.0, -torch.baddbmm(offset, density, matrix)) * 256 - 1
        return changed.round_().clamp_(0, 255).to(torch.uint8).view(n, height, width, 3)


def _where(chosen: Tensor, changed: Tensor, tiles: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], changed, tiles)


def transforms_in(epoch: int, options: AugmentationOptions) -> list[Transform]:
    """Return the transforms whose window holds `epoch`, counted from 1."""
    windows = options.windows()
    # Colour last: flips and rotations move pixels, and stain changes what they show.
    transforms: dict[str, Transform] = {"flips": Flip(), "rotations": Rotate(), "stain": StainJitter(options.stain_sigma)}
    return [transform for name, transform in transforms.items() if windows[name][0] <= epoch <= windows[name][1]]


def views_of(options: AugmentationOptions) -> list[View]:
    """Return the views that flips and rotations make of a tile if they act in any epoch, the tile as it is first."""
    acts = {name: first <= last for name, (first, last) in options.windows().items()}
    turns = range(4) if acts["rotations"] else (0, 2) if acts["flips"] else (0,)  # mirrored upside down is turned by 180
    mirrored = (False, True) if acts["flips"] else (False,)
    return [View(quarter_turns, is_mirrored) for is_mirrored in mirrored for quarter_turns in turns]


def change(
    tiles: Tensor, transforms: Sequence[Transform], generator: torch.Generator, *, n_drawn: int, share: slice = slice(None)
) -> Tensor:
    """Return `tiles` ``(n_tiles, size, size, 3)`` uint8, which are `share` of a batch of `n_drawn`, after all `transforms`."""
    for transform in transforms:
        drawn = transform.draw(n_drawn, generator)[share]
        tiles = transform.apply(tiles, drawn.to(tiles.device, non_blocking=True))
    return tiles
