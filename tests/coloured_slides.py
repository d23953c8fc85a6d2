"""Slides drawn for tests: squares of known colours on glass, in a pyramid as scanners write one; and slides that are odd."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

MICRONS = 0.5
MODEL_MICRONS = 2.0
EDGE_PX = 128
"""Of a square: what a model of 32 px sees at its scale."""
COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}
GLASS = 245


def draw(called: NDArray[np.int64], edge_px: int = EDGE_PX) -> NDArray[np.uint8]:
    """Return ``(height, width, 3)``: a square for each entry, of the colour of that class; -1 is glass."""
    colours = np.array([*COLOURS.values(), (GLASS,) * 3], np.uint8)
    return colours[called].repeat(edge_px, axis=0).repeat(edge_px, axis=1)


def write_slide(path: Path, pixels: NDArray[np.uint8], *, microns: float | None = MICRONS, n_levels: int = 3) -> Path:
    """Write a pyramidal TIFF, each level half as wide as the one before."""
    scale = {} if microns is None else {"resolution": (1e4 / microns, 1e4 / microns), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for level in range(n_levels):
            step = 2**level
            file.write(
                np.ascontiguousarray(pixels[::step, ::step]), tile=(128, 128), photometric="rgb", compression="zlib",
                subfiletype=int(level > 0), **(scale if level == 0 else {}),
            )  # fmt: skip
    return path


def chessboard(seed: int, shape: tuple[int, int] = (8, 10)) -> NDArray[np.int64]:
    """Return classes by chance, with a margin of glass."""
    called = np.full(shape, -1, np.int64)
    inside = (shape[0] - 2, shape[1] - 2)
    called[1:-1, 1:-1] = np.random.default_rng(seed).integers(0, len(COLOURS), inside)
    return called


def write_odd_slides(folder: Path) -> dict[str, str]:
    """Write five files that are no slides that can be scored; return by name what an error must say of each."""
    whole = write_slide(folder / "cut.tif", draw(chessboard(90)))
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    (folder / "empty.svs").touch()
    (folder / "words.ndpi").write_text("these are words\n" * 100)
    write_slide(folder / "scaleless.tif", draw(chessboard(91)), microns=None)
    write_slide(folder / "coarse.tif", draw(chessboard(92)), microns=8.0)
    return {
        "cut": "cut.tif",
        "empty": "empty.svs",
        "words": "words.ndpi",
        "scaleless": "does not state the width of its pixels",
        "coarse": "has 8 um per pixel",
    }
