"""Synthetic nine-class tiles, so that everything runs with no data at hand; these are drawings, not tissue.

Each tile is two stain maps, haematoxylin and eosin, drawn from simple shapes (nuclei, fibres, fat cells, glands, mucus,
fragments) and turned into RGB by the Beer-Lambert law. The mean strength of both stains is drawn for each tile on its own,
nearly alike in all classes, and every tile holds some texture of a second class: colour alone says little, shape must be
learnt.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import OptionError
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.options import DEMO, Address
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet

# Optical density of the stains in R, G, B (Ruifrok and Johnston 2001, "Quantification of histochemical staining by color
# deconvolution", haematoxylin and eosin).
_HAEMATOXYLIN_OD = np.array([0.650, 0.704, 0.286])
_EOSIN_OD = np.array([0.072, 0.990, 0.105])

_Map = NDArray[np.float64]
_Rng = np.random.Generator


def takes(address: Address) -> bool:
    """Return whether the drawings are meant, and not a file or folder."""
    return address.name == DEMO


def read(address: Address, _image_size: int) -> TileSet:
    """Return the drawings; behind the ``#`` may stand their seed."""
    if address.part and not address.part.isdecimal():
        raise OptionError(f"{address}: the number of a draw is meant, for instance {DEMO}#1")
    return draw_demo(seed=int(address.part or 0))


def draw_demo(*, n_tiles: int = 315, tile_size_px: int = 48, seed: int = 0) -> TileSet:
    """Return `n_tiles` synthetic tiles, the nine classes in turn; the same seed draws the same pixels."""
    labels = np.arange(n_tiles, dtype=np.int64) % len(COLORECTAL_CLASSES)
    rngs = np.random.default_rng(seed).spawn(n_tiles)
    images = np.stack([_draw_tile(int(label), tile_size_px, rng) for label, rng in zip(labels, rngs, strict=True)])
    images.setflags(write=False)
    return TileSet(
        images=images,
        labels=labels,
        classes=COLORECTAL_CLASSES,
        groups=None,
        source=f"demo tiles (synthetic, seed {seed})",
        fingerprint=fingerprint_of(images, labels),
        is_synthetic=True,
    )


def _draw_tile(label: int, size: int, rng: _Rng) -> NDArray[np.uint8]:
    haematoxylin, eosin = _TEXTURES[label](size, rng)
    other_h, other_e = _TEXTURES[int(rng.integers(len(_TEXTURES)))](size, rng)
    patch = _smooth_noise(size, rng, scale_px=size / 2) > 1.6  # about a twentieth of the tile belongs to a neighbour
    haematoxylin = np.where(patch, other_h, haematoxylin)
    eosin = np.where(patch, other_e, eosin)
    strength = 0.4 if COLORECTAL_CLASSES[label] == "BACK" else 1.0  # empty glass is pale
    haematoxylin = _set_mean(haematoxylin, strength * rng.uniform(0.10, 0.42))
    eosin = _set_mean(eosin, strength * rng.uniform(0.12, 0.45))
    density = haematoxylin[..., None] * _HAEMATOXYLIN_OD + eosin[..., None] * _EOSIN_OD
    light = rng.normal(0.965, 0.015, size=3)
    rgb = 255 * light * np.exp(-density) + rng.normal(0, 2.0, size=(size, size, 3))
    return np.asarray(np.clip(rgb, 0, 255), dtype=np.uint8)


def _set_mean(stain: _Map, mean: float) -> _Map:
    return stain * (mean / max(float(stain.mean()), 1e-6))


def _smooth_noise(size: int, rng: _Rng, *, scale_px: float) -> _Map:
    """Return noise of mean 0 and sd 1 whose features are about `scale_px` wide (white noise under a Gaussian filter)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) * np.exp(-2 * (frequency * scale_px) ** 2)
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-12))


def _ellipses(size: int, centres: _Map, radii: _Map, angles: _Map, elongation: float) -> _Map:
    """Return a map in [0, 1] of soft filled ellipses; `centres` (n, 2) y and x, `radii` (n,) px, `angles` (n,) radians."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    dy, dx = y - centres[:, 0, None, None], x - centres[:, 1, None, None]
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    along, across = (dx * cos + dy * sin) / elongation, -dx * sin + dy * cos
    distance = np.hypot(along, across) - radii[:, None, None]
    return np.asarray(np.clip(0.5 - distance, 0, 1).max(axis=0, initial=0.0))


def _nuclei(size: int, rng: _Rng, *, per_px: float, radius: tuple[float, float], elongation: float = 1.2) -> _Map:
    n = 1 + rng.poisson(per_px * size * size)
    angles = rng.uniform(0, np.pi, n)
    return _ellipses(size, rng.uniform(0, size, (n, 2)), rng.uniform(*radius, n), angles, elongation)


def _fibres(size: int, rng: _Rng, *, period_px: float, waviness: float) -> tuple[_Map, float]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    angle = rng.uniform(0, np.pi)
    across = -x * np.sin(angle) + y * np.cos(angle)
    phase = across / period_px + waviness * _smooth_noise(size, rng, scale_px=size / 4)
    return 0.5 + 0.5 * np.sin(2 * np.pi * phase + rng.uniform(0, 2 * np.pi)), angle


def _gland(size: int, rng: _Rng, *, irregular: float, nucleus_px: tuple[float, float]) -> tuple[_Map, _Map]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    centre = rng.uniform(0.3, 0.7, 2) * size
    radius = rng.uniform(0.22, 0.34) * size
    wobble = 1 + irregular * _smooth_noise(size, rng, scale_px=size / 5)
    distance = np.hypot(y - centre[0], x - centre[1]) * wobble
    lumen = np.clip(radius * 0.55 - distance, 0, 1)
    n = int(2 * np.pi * radius / (2.2 * np.mean(nucleus_px)))
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False) + rng.normal(0, 0.05 + irregular, n)
    reach = radius * (1 + rng.normal(0, 0.03 + irregular, n))
    centres = centre + reach[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    ring = _ellipses(size, centres, rng.uniform(*nucleus_px, n), angles, 1.5)
    return ring, lumen


def _adipose(size: int, rng: _Rng) -> tuple[_Map, _Map]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    seeds = rng.uniform(-0.2 * size, 1.2 * size, (rng.integers(9, 18), 2))
    distances = np.sort(np.hypot(y[..., None] - seeds[:, 0], x[..., None] - seeds[:, 1]), axis=-1)
    walls = np.clip(1.6 - (distances[..., 1] - distances[..., 0]), 0, 1)
    return 0.3 * walls + 0.4 * _nuclei(size, rng, per_px=0.0008, radius=(1.0, 1.6)) * walls + 0.05, walls + 0.05


def _background(size: int, rng: _Rng) -> tuple[_Map, _Map]:
    haze = 1 + 0.1 * _smooth_noise(size, rng, scale_px=size)
    specks = _nuclei(size, rng, per_px=0.001, radius=(0.4, 1.0))
    return haze + 0.6 * specks, haze


def _debris(size: int, rng: _Rng) -> tuple[_Map, _Map]:
    clumps = np.clip(_smooth_noise(size, rng, scale_px=4), 0, None)
    fragments = _nuclei(size, rng, per_px=0.03, radius=(0.4, 1.5), elongation=2.0)
    return fragments + 0.3 * clumps + 0.1, 0.6 * clumps + 0.4


def _lymphocytes(size: int, rng: _Rng) -> tuple[_Map, _Map]:
    nuclei = _nuclei(size, rng, per_px=0.028, radius=(1.9, 2.5), elongation=1.0)
    return nuclei + 0.1, 0.7 + 0.2 * _smooth_noise(size, rng, scale_px=6)


def _mucus(size: int, rng: _Rng) -> tuple[_Map, _Map]:
    fibres, _ = _fibres(size, rng, period_px=14, waviness=0.9)
    pools = 0.5 + 0.25 * _smooth_noise(size, rng, scale_px=9)
    return np.clip(pools, 0.05, None) + 0.5 * _nuclei(size, rng, per_px=0.001, radius=(1.2, 2.0)), fibres * 0.4 + 0.5


def _muscle(size: int, rng: _Rng) -> tuple[_Map, _Map]:
    fibres, angle = _fibres(size, rng, period_px=rng.uniform(5, 8), waviness=0.15)
    n = 1 + rng.poisson(0.004 * size * size)
    rods = _ellipses(size, rng.uniform(0, size, (n, 2)), rng.uniform(0.9, 1.4, n), rng.normal(angle, 0.1, n), 4.0)
    return rods + 0.08, fibres * 0.6 + 0.5


def _normal_mucosa(size: int, rng: _Rng) -> tuple[_Map, _Map]:
    ring, lumen = _gland(size, rng, irregular=0.02, nucleus_px=(1.6, 2.0))
    stroma = _nuclei(size, rng, per_px=0.005, radius=(1.2, 1.8))
    return (np.maximum(ring, 0.7 * stroma) + 0.1) * (1 - 0.8 * lumen), (1 - 0.7 * lumen) * 0.8


def _stroma(size: int, rng: _Rng) -> tuple[_Map, _Map]:
    fibres, angle = _fibres(size, rng, period_px=rng.uniform(4, 7), waviness=0.55)
    n = 1 + rng.poisson(0.004 * size * size)
    rods = _ellipses(size, rng.uniform(0, size, (n, 2)), rng.uniform(0.9, 1.5, n), rng.normal(angle, 0.7, n), 2.6)
    return rods + 0.08, fibres * 0.6 + 0.5


def _tumour(size: int, rng: _Rng) -> tuple[_Map, _Map]:
    ring, lumen = _gland(size, rng, irregular=0.14, nucleus_px=(2.0, 3.4))
    crowd = _nuclei(size, rng, per_px=0.010, radius=(1.8, 3.4), elongation=1.4)
    return (np.maximum(ring, crowd) + 0.1) * (1 - 0.5 * lumen), (1 - 0.4 * lumen) * 0.8


# In the order of the classes.
_TEXTURES: tuple[Callable[[int, _Rng], tuple[_Map, _Map]], ...] = (
    _adipose, _background, _debris, _lymphocytes, _mucus, _muscle, _normal_mucosa, _stroma, _tumour,
)  # fmt: skip
