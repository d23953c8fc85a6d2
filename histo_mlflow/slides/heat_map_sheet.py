"""The sheet that a heat map is drawn on, laid out in pixels from the top left, and its legend; knows no slide and no tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.lettering import label_classes
from histo_mlflow.base.palette import channels
from histo_mlflow.slides.heat_map_layers import COLOURS_OF_NUMBERS, hatch
from histo_mlflow.slides.summary import SlideSummary
from histo_mlflow.slides.verdicts import Verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

LEGEND_PX = 400

_TEXT_PX, _LINE_PX = 16, 28
_FRAME = "#999999"
_PT_IN_INCH = 72
_SWATCH_PX = (30, 20)
_NAME_LEFT, _SHARE_RIGHT, _AREA_RIGHT = 42, 300, 400
_MOST_CLASSES = 24
_NAME_CHARACTERS = 20


@dataclass(frozen=True, eq=False)
class Sheet:
    """An empty picture to which things are added.

    Attributes:
        picture: As matplotlib draws it.
        size_px: Its width and height.
    """

    dpi: ClassVar[int] = 100
    picture: Picture
    size_px: tuple[int, int]

    @classmethod
    def begin(cls, size_px: tuple[int, int]) -> Sheet:
        """Return an empty sheet."""
        from matplotlib.figure import Figure

        return cls(Figure(figsize=(size_px[0] / cls.dpi, size_px[1] / cls.dpi), dpi=cls.dpi, facecolor="white"), size_px)

    def write(
        self, place: tuple[float, float], text: str, *, size_px: int = _TEXT_PX, colour: str = "black", **how: Any
    ) -> None:
        """Write a text whose top left is `place`; `how` are other properties of matplotlib's, as ``ha`` and ``weight``."""
        x, y = place[0] / self.size_px[0], 1 - place[1] / self.size_px[1]
        self.picture.text(x, y, text, va="top", color=colour, fontsize=size_px * _PT_IN_INCH / self.dpi, **how)

    def show(self, pixels: NDArray[np.uint8], corner: tuple[int, int], title: str) -> None:
        """Show pixels as they are, a title above them."""
        height, width, _ = pixels.shape
        axes = self.picture.add_axes(self._box(corner, (width, height)))
        axes.imshow(pixels, interpolation="nearest", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(_FRAME)
        self.write((corner[0], corner[1] - 28), title, size_px=17, weight="bold")

    def write_over(self, corner: tuple[int, int], shape: tuple[int, ...], text: str) -> None:
        """Write into the middle of a picture, on white."""
        x, y = (corner[0] + shape[1] / 2) / self.size_px[0], 1 - (corner[1] + shape[0] / 2) / self.size_px[1]
        box = {"facecolor": "white", "edgecolor": _FRAME, "boxstyle": "round,pad=0.6"}
        size = 18 * _PT_IN_INCH / self.dpi
        self.picture.text(x, y, text, ha="center", va="center", fontsize=size, bbox=box, linespacing=1.4)

    def draw_bar(self, corner: tuple[int, int], length_px: int, text: str) -> None:
        """Draw a scale bar, its length in words below it."""
        self._fill(corner, np.zeros((6, length_px, 3), np.uint8))
        self.write((corner[0], corner[1] + 12), text)

    def draw_scale(self, corner: tuple[int, int], length_px: int, limits: tuple[float, float]) -> None:
        """Draw the colours of numbers from the first to the last limit, with both and the middle below them."""
        from matplotlib import colormaps

        colours = colormaps[COLOURS_OF_NUMBERS](np.linspace(0, 1, length_px))[None, :, :3]
        self._fill(corner, np.repeat(np.rint(255 * colours).astype(np.uint8), 12, axis=0))
        first, last = limits
        for share, side in ((0.0, "left"), (0.5, "center"), (1.0, "right")):
            self.write((corner[0] + share * length_px, corner[1] + 18), f"{first + share * (last - first):.2g}", ha=side)

    def draw_swatch(self, corner: tuple[int, int], colour: str, *, hatched: bool) -> None:
        """Draw a small field of a colour."""
        field = np.full((_SWATCH_PX[1], _SWATCH_PX[0], 3), channels(colour), np.uint8)
        if hatched:
            field[hatch(field.shape[:2])] = 110
        self._fill(corner, field)

    def _fill(self, corner: tuple[int, int], pixels: NDArray[np.uint8]) -> None:
        axes = self.picture.add_axes(self._box(corner, (pixels.shape[1], pixels.shape[0])))
        axes.imshow(pixels, interpolation="nearest", aspect="auto")
        axes.set_axis_off()

    def _box(self, corner: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height as shares of the sheet."""
        width, height = self.size_px
        return corner[0] / width, 1 - (corner[1] + size[1]) / height, size[0] / width, size[1] / height


def legend_height(n_names: int) -> int:
    """Return how many pixels a legend needs, with the lines that stand below it."""
    return (min(n_names, _MOST_CLASSES) + 11) * _LINE_PX


def draw_legend(sheet: Sheet, corner: tuple[int, int], verdicts: Verdicts, summary: SlideSummary) -> None:
    """Draw the colour, name, share and area of each class; of many classes those that take most of the tissue."""
    left, top = corner
    areas = list(summary.areas_mm2)
    if verdicts.has_not_sure:
        areas.append(summary.scored_mm2 * (summary.abstained_share or 0.0))
    n_classes = len(summary.classes)
    labels = label_classes(verdicts.names[:n_classes])
    names = (*labels.shown, *verdicts.names[n_classes:])
    sheet.write((left, top - 28), "Class", size_px=17, weight="bold")
    sheet.write((left + _SHARE_RIGHT, top - 28), "share", size_px=17, weight="bold", ha="right")
    sheet.write((left + _AREA_RIGHT, top - 28), "mm²", size_px=17, weight="bold", ha="right")
    shown = sorted(sorted(range(len(areas)), key=lambda k: -areas[k])[:_MOST_CLASSES])
    y = top
    for k in shown:
        colour = "black" if areas[k] else "#777777"
        sheet.draw_swatch((left, y + 1), verdicts.colours[k], hatched=verdicts.has_not_sure and k == len(areas) - 1)
        sheet.write((left + _NAME_LEFT, y), shortened(names[k], _NAME_CHARACTERS), colour=colour)
        sheet.write((left + _SHARE_RIGHT, y), _percent(areas[k], summary.scored_mm2), colour=colour, ha="right")
        sheet.write((left + _AREA_RIGHT, y), f"{areas[k]:.2f}", colour=colour, ha="right")
        y += _LINE_PX
    notes = [f"and {len(areas) - len(shown)} smaller classes: see the tables"] * (len(shown) < len(areas))
    notes += ["Classes are numbered from 0, as in the tables:\nno font of this machine has their letters."] * bool(labels.key)
    sheet.write((left, y + 12), "\n".join([*notes, *_facts(summary)]), colour="#444444", linespacing=1.5)


def _facts(summary: SlideSummary) -> list[str]:
    facts = []
    if summary.tissue_mm2 is not None and summary.tissue_share is not None:
        facts.append(f"Tissue: {summary.tissue_mm2:.2f} mm², {_percent(summary.tissue_share, 1)} of the slide")
    facts.append(f"Shares are of the area of all tiles, {summary.scored_mm2:.2f} mm²")
    if summary.mean_confidence is not None:
        facts.append(f"Mean probability of the class named: {summary.mean_confidence:.2f}")
    if summary.unreadable_tiles:
        facts.append(f"Black: tiles that could not be decoded ({summary.unreadable_tiles}),\nwhich are in no share")
    if summary.abstained_share is None:
        facts.append("The model was not asked where it is not sure.")
    return facts


def _percent(part: float, whole: float) -> str:
    share = 100 * part / whole if whole else 0.0
    return f"{share:.1f} %" if share == 0 or share >= 0.1 else "< 0.1 %"


def shortened(text: str, n_characters: int) -> str:
    """Return a text that has no more letters, the middle left out: names of slides differ at both ends."""
    if len(text) <= n_characters:
        return text
    return f"{text[: n_characters // 2]}…{text[len(text) - (n_characters - 1) // 2 :]}"
