"""Slides whose every pixel is known, and regions drawn on them as QuPath writes them."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

Ring = Sequence[tuple[float, float]]

MICRONS = 0.25


def write_slide(path: Path, pixels: np.ndarray, *, microns: float | None = MICRONS) -> Path:
    """Write a tiled pyramid of two levels, the second at a quarter."""
    scale = {} if microns is None else {"resolution": (1e4 / microns, 1e4 / microns), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for level, each in enumerate((pixels, pixels[::4, ::4])):
            file.write(np.ascontiguousarray(each), tile=(128, 128), photometric="rgb", subfiletype=int(level > 0), **scale)
    return path


def chequered(n_columns: int, n_rows: int, edge_px: int, *, glass: int = 0, seed: int = 0) -> np.ndarray:
    """Return squares of which each is like no other, ``(n_rows * edge, n_columns * edge, 3)``, the last columns glass.

    Red tells the column, green the row; blue is a texture, without which all squares would be copies of one another.
    """
    squares = np.empty((n_rows, n_columns, 3), np.uint8)
    squares[..., 0], squares[..., 1] = np.meshgrid(120 + 4 * np.arange(n_columns), 20 + 4 * np.arange(n_rows))
    pixels = squares.repeat(edge_px, axis=0).repeat(edge_px, axis=1)
    texture = np.random.default_rng(seed).integers(0, 256, (n_rows * 8, n_columns * 8), np.uint8)
    pixels[..., 2] = texture.repeat(edge_px // 8, axis=0).repeat(edge_px // 8, axis=1)
    pixels[:, (n_columns - glass) * edge_px :] = 240
    return pixels


def place_of(tile: np.ndarray) -> tuple[int, int]:
    """Return column and row of the square that a tile shows."""
    red, green, _ = np.median(tile.reshape(-1, 3), axis=0)
    return round((red - 120) / 4), round((green - 20) / 4)


def rectangle(left: float, top: float, right: float, bottom: float) -> Ring:
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def feature(name: Any, *rings: Ring, **properties: Any) -> dict[str, Any]:
    """Return an annotation with a class; `name` may be the classification as it is to stand."""
    classification = {"name": name, "color": [200, 0, 0]} if isinstance(name, str) else name
    known = {"objectType": "annotation"} | ({} if name is None else {"classification": classification}) | properties
    geometry = {"type": "Polygon", "coordinates": [[list(point) for point in ring] for ring in rings]}
    return {"type": "Feature", "id": str(uuid.uuid4()), "geometry": geometry, "properties": known}


def write_features(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path
