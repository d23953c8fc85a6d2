"""Squares of a model's size and scale laid over the tissue of a slide; reads no pixels of it."""

import numpy as np

from histo_mlflow.errors import OptionError
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.tissue import Tissue


def lay_grid(
    slide: Slide, tissue: Tissue, *, size_px: int, microns_per_pixel: float, stride: float = 1.0, least_tissue: float = 0.5
) -> Places:
    """Return the tiles of a regular grid from the slide's top left corner that hold enough tissue, row by row.

    An edge is as many whole pixels of level 0 as come nearest to ``size_px * microns_per_pixel``: at 224 px that changes the
    scale by 0.2 % at most, and tiles beside each other neither overlap nor leave gaps. Tile ``k`` of a row begins at
    ``round(k * stride_px)``: roundings do not add up. A tile that reaches over the right or the lower end of the slide is kept
    if it holds enough tissue; beyond the end it is white, and counts as no tissue.

    Args:
        slide: Its scale must be known.
        tissue: What counts as tissue.
        size_px: Edge of a tile as the model takes it.
        microns_per_pixel: The model's.
        stride: From one tile to the next, in edges: 1 lays them side by side, 0.5 over each other by half.
        least_tissue: Share of a tile that must be tissue.

    Raises:
        OptionError: The scale of the slide is not known, or a tile would be less than a pixel of it.
    """
    if slide.microns_per_pixel is None:
        raise OptionError(f"{slide.path} does not state its microns per pixel; give them")
    edge_px = round(size_px * microns_per_pixel / slide.microns_per_pixel)
    if edge_px < 1 or stride * edge_px < 1:
        raise OptionError(
            f"{slide.path}: a tile of {size_px} px at {microns_per_pixel:g} micrometres with stride {stride:g} is less than a "
            f"pixel of a slide at {slide.microns_per_pixel:g}"
        )
    stride_px = edge_px * stride
    lefts, tops = (np.rint(np.arange(np.ceil(length / stride_px)) * stride_px).astype(np.int64) for length in slide.size_px)
    left, top = (axis.ravel() for axis in np.meshgrid(lefts[lefts < slide.size_px[0]], tops[tops < slide.size_px[1]]))
    share = tissue.share_of(Places(left, top, edge_px, stride_px))
    # Whole tiles of tissue sum up to 1 but for rounding; a share of 0 asks for tiles with any tissue.
    enough = (share >= least_tissue - 1e-9) & (share > 0)
    return Places(left[enough], top[enough], edge_px, stride_px)
