"""What a person opens first of a scored slide: the slide, the classes on it with their areas, and how sure the model is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.lettering import letter
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.slides import heat_map_layers as layers
from histo_mlflow.slides.heat_map_sheet import LEGEND_PX, Sheet, draw_legend, legend_height, shortened
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.summary import summarize
from histo_mlflow.slides.tissue import Tissue
from histo_mlflow.slides.verdicts import Verdicts, verdicts_of

if TYPE_CHECKING:  # matplotlib is imported where a picture begins
    from matplotlib.figure import Figure as Picture

_BESIDE = 1.8  # slides that are wider for their height have their pictures below one another
_BOX_BESIDE, _BOX_BELOW = (560, 880), (1150, 460)
_LEAST_PX = 400
_MARGIN, _GAP, _HEAD, _OVER_PICTURE, _FOOT = 32, 28, 100, 34, 84
_BAR_STEPS = (1, 2, 5)
_BAR_SHARE = 0.35


@dataclass(frozen=True, eq=False)
class Backdrop:
    """What a heat map shows beside the tiles.

    Attributes:
        picture: ``(height, width, 3)`` uint8: all of the slide, small.
        tissue: What was found to be tissue, if anybody looked.
        model: Name and version.
        date: In words.
    """

    picture: NDArray[np.uint8]
    tissue: Tissue | None
    model: str
    date: str


def write_heat_map(scored: ScoredSlide, backdrop: Backdrop, path: Path) -> None:
    """Write the heat map of a slide as PNG, whole or not at all."""
    picture = draw_heat_map(scored, backdrop)
    letter(picture)
    with written_whole(path) as draft:
        picture.savefig(draft, format="png", dpi=Sheet.dpi)


def draw_heat_map(scored: ScoredSlide, backdrop: Backdrop) -> Picture:
    """Return the slide with the border of its tissue, its classes with a legend, and how sure the model is of them."""
    is_beside = scored.size_px[0] <= _BESIDE * scored.size_px[1]
    size = _fitted(scored.size_px, _BOX_BESIDE if is_beside else _BOX_BELOW)
    verdicts, summary = verdicts_of(scored), summarize(scored, backdrop.tissue)
    cell = max(size[0], _LEAST_PX), _OVER_PICTURE + size[1] + _FOOT
    n_columns, n_rows = (3, 1) if is_beside else (1, 3)
    legend_left = _MARGIN + n_columns * (cell[0] + _GAP)
    height = max(n_rows * cell[1], legend_height(len(verdicts.names))) + _HEAD + _MARGIN // 2
    sheet = Sheet.begin((legend_left + LEGEND_PX + _MARGIN, height))
    _write_title(sheet, scored, backdrop, legend_left)
    ground = layers.lay_ground(scored, backdrop.picture, backdrop.tissue, size)
    corners = [
        (
            _MARGIN + k % n_columns * (cell[0] + _GAP),
            _HEAD + k // n_columns * cell[1] + _OVER_PICTURE,
        )
        for k in range(3)
    ]
    _draw_slide(sheet, corners[0], ground, scored)
    _draw_classes(sheet, corners[1], ground, verdicts)
    _draw_certainty(sheet, corners[2], ground, scored)
    draw_legend(sheet, (legend_left, _HEAD + _OVER_PICTURE), verdicts, summary)
    return sheet.picture


def _fitted(full: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height at which a slide just fits a box."""
    scale = min(box[0] / full[0], box[1] / full[1])
    return max(1, round(full[0] * scale)), max(1, round(full[1] * scale))


def _write_title(sheet: Sheet, scored: ScoredSlide, backdrop: Backdrop, width: int) -> None:
    sheet.write((_MARGIN, 22), shortened(visible(scored.name), width // 14), size_px=26, weight="bold")
    edge_um = scored.places.edge_px * scored.microns_per_pixel
    tiles = f"{len(scored):,} tile{'' if len(scored) == 1 else 's'} of {edge_um:.0f} µm" if len(scored) else "no tiles"
    facts = [visible(backdrop.model), visible(backdrop.date), tiles]
    sheet.write((_MARGIN, 62), "  ·  ".join(shortened(each, 70) for each in facts if each), colour="#444444")


def _draw_slide(sheet: Sheet, corner: tuple[int, int], ground: layers.Ground, scored: ScoredSlide) -> None:
    pixels = layers.paint_slide(ground)
    border = ", border of its tissue" if ground.outline.any() else ""
    sheet.show(pixels, corner, f"The slide{border}")
    width_mm = scored.size_px[0] * scored.microns_per_pixel / 1000
    bar_mm = max(
        step * 10.0**power for power in range(-4, 4) for step in _BAR_STEPS if step * 10.0**power <= _BAR_SHARE * width_mm
    )
    sheet.draw_bar((corner[0], corner[1] + pixels.shape[0] + 16), round(pixels.shape[1] * bar_mm / width_mm), f"{bar_mm:g} mm")


def _draw_classes(sheet: Sheet, corner: tuple[int, int], ground: layers.Ground, verdicts: Verdicts) -> None:
    pixels = layers.paint_verdicts(ground, verdicts)
    sheet.show(pixels, corner, "Class of each tile")
    if not len(verdicts.of_tiles):
        sheet.write_over(corner, pixels.shape, "No tissue was found\non this slide,\nso no tile was looked at.")


def _draw_certainty(sheet: Sheet, corner: tuple[int, int], ground: layers.Ground, scored: ScoredSlide) -> None:
    """Show the spread over the symmetries, if they were looked at, or the probability; dark where it is not sure."""
    if scored.spread is None:
        values, title = scored.probabilities.max(axis=1, initial=0), "Probability of the class that is named"
        limits = (1 / len(scored.classes) if len(scored.classes) > 1 else 0.0, 1.0)
    else:
        values, title = scored.spread, "Spread of its probability over the views"
        limits = max(0.1, float(np.ceil(10 * scored.spread.max(initial=0)) / 10)), 0.0
    pixels = layers.paint_numbers(ground, values, limits)
    sheet.show(pixels, corner, title)
    if len(scored):
        below = corner[0], corner[1] + pixels.shape[0] + 16
        sheet.draw_scale(below, min(300, max(pixels.shape[1], 200)), limits)
