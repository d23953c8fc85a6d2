"""Faults that tests plant in tiles: what is done to a tile, and nothing of what an audit makes of it."""

import io
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.tile_set import TileSet

Tile = NDArray[np.uint8]


def as_tiles(images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None, n_classes: int = 2) -> TileSet:
    labels = np.arange(len(images)) % n_classes if labels is None else labels
    classes = tuple("abcdefghi"[:n_classes])
    return TileSet(images, labels, classes, None, "planted", fingerprint_of(images, labels))


def texture(n: int, size: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Tiles of noise blurred on several scales, no two alike: like tissue to a hash, and drawn at once."""
    generator = np.random.default_rng(seed)
    tiles = np.full((n, size, size, 3), (170.0, 130.0, 165.0))
    for tile in tiles:
        for blur, weight in ((size / 8, 25), (size / 24, 15), (1.0, 14)):
            field = cv2.GaussianBlur(generator.standard_normal((size, size)), (0, 0), blur)
            tile += (weight * field / field.std())[..., None] * (1.0, 0.8, 0.9)
    return np.clip(tiles, 1, 254).astype(np.uint8)


def stored_anew(tile: Tile, quality: int) -> Tile:
    with io.BytesIO() as buffer:
        Image.fromarray(np.ascontiguousarray(tile)).save(buffer, format="JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))


def near_duplicate(tile: Tile, generator: np.random.Generator) -> Tile:
    """Turned by quarters, mirrored, then shifted by up to 2 % or brightened or neither, and stored anew."""
    tile = np.rot90(tile, generator.integers(4))
    tile = tile[:, ::-1] if generator.random() < 0.5 else tile
    kind, most = generator.integers(3), max(1, len(tile) // 50)
    if kind == 1:
        tile = np.roll(tile, tuple(generator.integers(-most, most + 1, 2)), (0, 1))
    if kind == 2:
        tile = np.clip(tile * generator.uniform(0.85, 1.15), 0, 255).astype(np.uint8)
    return stored_anew(tile, int(generator.integers(40, 96)))


def sibling(tile: Tile, generator: np.random.Generator) -> Tile:
    """As LC25000 was made: turned by up to 25 degrees, the corners cropped, perhaps mirrored, stored anew."""
    degrees = generator.uniform(5, 25) * generator.choice([-1, 1])
    turned = Image.fromarray(tile).rotate(degrees, Image.Resampling.BICUBIC)
    angle = np.deg2rad(abs(degrees))
    margin = len(tile) * (1 - 1 / (np.cos(angle) + np.sin(angle))) / 2
    box = (margin, margin, len(tile) - margin, len(tile) - margin)
    found = np.asarray(turned.crop(box).resize((len(tile), len(tile)), Image.Resampling.BICUBIC))
    return stored_anew(found[:, ::-1] if generator.random() < 0.5 else found, int(generator.integers(70, 96)))


def _cut(tile: Tile) -> Tile:
    cut = tile.copy()
    cut[int(0.8 * len(tile)) :] = 128
    return cut


def _written_on(tile: Tile) -> Tile:
    marked = tile.copy()
    size = len(tile)
    cv2.line(marked, (size // 20, 0), (size - size // 10, size - 1), (30, 140, 60), size // 9)
    return marked


FAULTS: dict[str, Callable[[Tile], Tile]] = {
    "cut_tiles": _cut,
    "blank_tiles": lambda tile: np.full_like(tile, 240) + (tile % 3),
    "dark_tiles": lambda tile: tile // 4,
    "coarse_tiles": lambda tile: tile // 16 * 16,
    "overflown_tiles": lambda tile: (tile.astype(int) * 2 % 256).astype(np.uint8),
    "saturated_tiles": lambda tile: np.clip(tile * 2.5, 0, 255).astype(np.uint8),
    "clipped_tiles": lambda tile: np.maximum(tile, cut := np.uint8(np.percentile(tile, 40))) - cut,
    "pen_marks": _written_on,
    "blurred_tiles": lambda tile: np.asarray(cv2.GaussianBlur(tile, (0, 0), 3), np.uint8),
}
