"""Random changes of uint8 batches that leave a tile a valid tile of its class; knows nothing of epochs.

Each has two steps: `draw` takes the chance for a whole batch from one generator on the CPU, so that a saved state of it gives
the same changes on every device and however a batch is shared among processes; `apply` makes the changes where the tiles are.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


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


_BLOCK = 8  # edge length of what JPEG transforms at once
_BEST_QUALITY = 95

# Quantisation tables of ITU-T T.81, annex K.1, for luminance and chrominance.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *(((99,) * 8,) * 4),
)  # fmt: skip


@dataclass(frozen=True)
class JpegNoise:
    """Lose what JPEG compression loses, in half of the tiles, at a quality from `lowest_quality` to 95.

    The lossy steps of JPEG for a whole batch on the device: YCbCr, chroma halved (4:2:0), DCT of 8 x 8 blocks, quantisation
    with the tables of ITU-T T.81 scaled as libjpeg does. Entropy coding, which loses nothing, is left out.
    """

    lowest_quality: int

    def draw(self, n_tiles: int, generator: torch.Generator) -> Tensor:
        """Return ``(n_tiles,)`` qualities, 0 for tiles that stay as they are."""
        quality = torch.randint(self.lowest_quality, _BEST_QUALITY + 1, (n_tiles,), generator=generator)
        return quality * torch.randint(2, (n_tiles,), generator=generator)

    def apply(self, tiles: Tensor, drawn: Tensor) -> Tensor:
        """Return the degraded tiles."""
        changed = compress(tiles, drawn.clamp(min=1))
        return _where(drawn > 0, changed, tiles)


def compress(tiles: Tensor, quality: Tensor) -> Tensor:
    """Return ``(n_tiles, height, width, 3)`` uint8 as JPEG of `quality` ``(n_tiles,)``, 1 to 100, would leave it."""
    height, width = tiles.shape[1:3]
    margin = 2 * _BLOCK
    pixels = tiles.permute(0, 3, 1, 2).float()
    pixels = functional.pad(pixels, (0, -width % margin, 0, -height % margin), mode="replicate")
    red, green, blue = pixels.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], dim=1)  # centred on 0
    luma = _quantise(luma[:, None] - 128, quality, _LUMINANCE)[:, 0] + 128
    chroma = _quantise(functional.avg_pool2d(chroma, 2), quality, _CHROMINANCE)
    chroma = functional.interpolate(chroma, scale_factor=2, mode="bilinear")  # libjpeg's triangle filter
    cb, cr = chroma.unbind(1)
    rgb = torch.stack([luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb], dim=-1)
    return rgb[:, :height, :width].round_().clamp_(0, 255).to(torch.uint8)


def _quantise(planes: Tensor, quality: Tensor, table: tuple[tuple[int, ...], ...]) -> Tensor:
    """Return `planes` ``(n_tiles, n_planes, height, width)`` after their block spectra were rounded to steps of the table."""
    quality = quality.float()
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    base = torch.tensor(table, dtype=torch.float32, device=planes.device)
    steps = torch.floor((base * scale[:, None, None] + 50) / 100).clamp_(1, 255)[:, None, None, None]
    n, n_planes, height, width = planes.shape
    blocks = planes.reshape(n, n_planes, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(3, 4)
    dct = _dct_matrix(planes.device)
    spectrum = torch.round(dct @ blocks @ dct.T / steps) * steps
    return (dct.T @ spectrum @ dct).transpose(3, 4).reshape(planes.shape)


def _dct_matrix(device: torch.device) -> Tensor:
    position = torch.arange(_BLOCK, dtype=torch.float32, device=device)
    matrix = torch.cos(math.pi / _BLOCK * (position + 0.5) * position[:, None]) * math.sqrt(2 / _BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix


def _where(chosen: Tensor, changed: Tensor, tiles: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], changed, tiles)
