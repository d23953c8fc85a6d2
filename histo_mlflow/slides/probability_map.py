"""The probabilities of a slide as a picture: a pyramidal, tiled OME-TIFF that lies over the slide, a channel for each class.

Numbers are float32 from 0 to 1, as the model says them: what is measured on the map is a probability. Where no tile lies all
channels are 0; elsewhere they sum to 1, on every level of the pyramid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.palette import channels
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.slides.cells import cells_of
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.verdicts import verdicts_of

_TILE_PX = 256
_OPAQUE = 255
Floats = NDArray[np.float32]


def write_probability_map(scored: ScoredSlide, path: Path) -> None:
    """Write the map of a slide, whole or not at all.

    Each tile is one pixel, as wide as the stride. The first pixel begins where the slide begins, so that their physical sizes
    alone lay the map over the slide; where tiles overlap, that is right to half a pixel.
    """
    import tifffile

    levels = list(_pyramid(_drawn(scored)))
    verdicts = verdicts_of(scored)
    microns = scored.places.stride_px * scored.microns_per_pixel
    metadata = {
        "axes": "CYX",
        "Name": f"{visible(scored.name)}: probabilities",
        "PhysicalSizeX": microns,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": microns,
        "PhysicalSizeYUnit": "µm",
        "Channel": {
            "Name": list(verdicts.names[: len(scored.classes)]),
            "Color": [_ome_colour(colour) for colour in verdicts.colours[: len(scored.classes)]],
        },
    }
    with written_whole(path) as draft, tifffile.TiffWriter(draft, ome=True, bigtiff=True) as file:
        for position, level in enumerate(levels):
            file.write(
                level,
                subifds=len(levels) - 1 if position == 0 else None,
                subfiletype=0 if position == 0 else 1,
                metadata=metadata if position == 0 else None,
                tile=(_TILE_PX, _TILE_PX),
                photometric="minisblack",
                compression="zlib",
                resolution=(1e4 / (microns * 2**position),) * 2,
                resolutionunit="CENTIMETER",
            )


def _drawn(scored: ScoredSlide) -> Floats:
    """Return the finest level ``(n_classes, height, width)``."""
    cells, stride = cells_of(scored), scored.places.stride_px
    first_column, first_row = (math.floor(corner / stride + 0.5) for corner in cells.corner_px)
    width, height = (max(1, math.ceil(size / stride)) for size in scored.size_px)
    width, height = max(width, first_column + cells.shape[1]), max(height, first_row + cells.shape[0])
    drawn = np.zeros((len(scored.classes), height, width), np.float32)
    drawn[:, cells.rows + first_row, cells.columns + first_column] = scored.probabilities.T
    return drawn


def _pyramid(level: Floats) -> Iterator[Floats]:
    """Yield the level, then ever coarser ones, until one fits a tile of the file."""
    yield level
    while max(level.shape[1:]) > _TILE_PX:
        level = _halved(level)
        yield level


def _halved(level: Floats) -> Floats:
    """Return the means of two by two pixels, of those alone that are looked at: a border does not make a class less likely."""
    _, height, width = level.shape
    padded = np.pad(level, ((0, 0), (0, height % 2), (0, width % 2)))
    sums = padded[:, ::2, ::2] + padded[:, 1::2, ::2] + padded[:, ::2, 1::2] + padded[:, 1::2, 1::2]
    n_seen = np.rint(sums.sum(axis=0))  # each pixel that is looked at adds 1
    means: Floats = np.divide(sums, n_seen, out=np.zeros_like(sums), where=n_seen > 0)
    return means


def _ome_colour(colour: str) -> int:
    """Return a colour as OME writes it: red, green, blue and alpha as one signed number of 32 bits."""
    red, green, blue = channels(colour)
    return int.from_bytes(bytes([red, green, blue, _OPAQUE]), "big", signed=True)
