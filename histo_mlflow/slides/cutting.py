"""Which squares of a slide become tiles of which class, by the regions that were drawn on it; reads no pixels."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from histo_mlflow.errors import AnnotationError
from histo_mlflow.slides.annotations import IGNORE, Annotations
from histo_mlflow.slides.areas import Shares, shares_inside
from histo_mlflow.slides.options import GLASS, CutOptions
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.tissue import Tissue

TWO_CLASSES, LITTLE_TISSUE, SURPLUS = "in two classes", "little tissue", "above at-most"
"""Why tiles of a class are left out."""

_ROUNDING = 1e-9
_LEAST_ON_SLIDE = 0.5
_BLOCK = 8  # tiles: background so near to each other is of one region

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ground:
    """What is known of a slide before tiles are cut from it.

    Attributes:
        size_px: Width and height of level 0.
        areas: What each class covers, in pixels of level 0; `IGNORE` is the class of what nothing is cut from.
        tissue: Where there is some.
    """

    size_px: tuple[int, int]
    areas: Mapping[str, shapely.Geometry]
    tissue: Tissue


@dataclass(frozen=True, eq=False)
class Cut:
    """Squares that become tiles, row by row, and those that do not.

    Attributes:
        places: ``(n_tiles,)``.
        classes: ``(n_tiles,)`` the class of each, by name.
        regions: ``(n_tiles,)`` the region that it lies in, or, of the background, the part of the slide: names on this slide.
        left_out: Number of tiles by class and reason.
        conflicts: Squares that lie in regions of two classes.
        pairs: Number of these by the two classes.
    """

    places: Places
    classes: NDArray[np.str_]
    regions: NDArray[np.str_]
    left_out: Counter[tuple[str, str]]
    conflicts: Places
    pairs: Counter[tuple[str, str]]


def areas_of(annotations: Annotations, new_names: Mapping[str, str | None]) -> dict[str, shapely.Geometry]:
    """Return what each class covers, by its new name; what is to have none (None) is all `IGNORE`."""
    parts: dict[str, list[shapely.Geometry]] = {}
    for region in annotations.regions:
        parts.setdefault(new_names.get(region.name, region.name) or IGNORE, []).append(region.shape)
    return {name: shapely.union_all(shapes) for name, shapes in sorted(parts.items())}


def check_on_slide(annotations: Annotations, size_px: tuple[int, int], *, file: Path, slide: Path) -> None:
    """Raise `AnnotationError` where more than half of a region lies outside of the slide.

    It is of another slide, or was drawn in another unit than pixels of level 0.
    """
    ground = shapely.box(0, 0, *size_px)
    for region in annotations.regions:
        if shapely.intersection(region.shape, ground).area < _LEAST_ON_SLIDE * region.shape.area:
            left, top, right, bottom = region.shape.bounds
            raise AnnotationError(
                f"{file}, feature {region.number} ({region.name}) lies at x {left:.0f} to {right:.0f}, y {top:.0f} to "
                f"{bottom:.0f}, outside of {slide}, which is {size_px[0]} x {size_px[1]} px; it is of another slide, or not in "
                "pixels of the finest level"
            )


def choose_tiles(
    grid: Places, ground: Ground, rules: CutOptions, *, least_tissue: float, generator: np.random.Generator
) -> Cut:
    """Return which squares of a grid become tiles, and of which class.

    A square is of a class if at least `inside` of it lies in regions of this class alone. Where only regions of other classes
    over them stand against it, it is a conflict. Squares that reach over the end of the slide never become tiles.

    Args:
        grid: Squares all over the slide.
        ground: Of the slide.
        rules: As asked.
        least_tissue: Share of a tile that must be tissue.
        generator: Draws tiles where there are too many.
    """
    grid = grid.at(_on_slide(grid, ground.size_px))
    areas = list(ground.areas.values())
    whole, own = _shares(areas, grid), _shares(_without_others(areas), grid)
    names = [*ground.areas, *({rules.background_class} - {"", *ground.areas})]
    is_conflict, labels = _label(whole, own, rules.inside - _ROUNDING)
    pairs = _pairs(whole[is_conflict], names)
    left_out = Counter((name, TWO_CLASSES) for pair in pairs.elements() for name in pair if name != IGNORE)
    labels[np.isin(labels, [k for k, name in enumerate(names) if name == IGNORE])] = _NONE

    tissue = ground.tissue.share_of(grid)
    is_tissue = (tissue >= least_tissue - _ROUNDING) & (tissue > 0)
    needs_tissue = np.array([name not in rules.classes_without_tissue for name in [*names, ""]])
    is_pale = (labels != _NONE) & needs_tissue[labels] & ~is_tissue
    left_out.update((names[k], LITTLE_TISSUE) for k in labels[is_pale].tolist())
    labels[is_pale] = _NONE

    counts = _count(labels, names)
    limits = [rules.at_most or len(grid)] * len(names)
    if rules.background_class:
        number = names.index(rules.background_class)
        labels[~(whole > 0).any(axis=1) & ((tissue == 0) if rules.background_from == GLASS else is_tissue)] = number
        if not rules.at_most:
            limits[number] = max(counts)
    rows = _draw(labels, limits, generator)
    surplus = np.array(_count(labels, names)) - _count(labels[rows], names)
    left_out.update({(name, SURPLUS): n for name, n in zip(names, surplus.tolist(), strict=True) if n})
    classes = np.array([*names, ""], dtype=np.str_)[labels[rows]]
    chosen = grid.at(rows)
    return Cut(chosen, classes, _regions(chosen, classes, ground), left_out, grid.at(np.flatnonzero(is_conflict)), pairs)


_NONE = -1


def _label(whole: Shares, own: Shares, enough: float) -> tuple[NDArray[np.bool_], Rows]:
    """Return which squares are conflicts, and the position of the class of each, or `_NONE`."""
    if not whole.shape[1]:
        return np.zeros(len(whole), np.bool_), np.full(len(whole), _NONE)
    labels = np.where((own >= enough).any(axis=1), own.argmax(axis=1), _NONE)
    return (labels == _NONE) & (whole >= enough).any(axis=1), labels


def _count(labels: Rows, names: list[str]) -> list[int]:
    counts: list[int] = np.bincount(labels[labels != _NONE], minlength=len(names)).tolist()
    return counts


def _draw(labels: Rows, limits: list[int], generator: np.random.Generator) -> Rows:
    """Return squares that have a class, row by row: all of a class, or as many as its limit, drawn at random."""
    chosen = []
    for k, limit in enumerate(limits):
        rows = np.flatnonzero(labels == k)
        chosen.append(rows if len(rows) <= limit else generator.choice(rows, limit, replace=False))
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))


def _regions(places: Places, classes: NDArray[np.str_], ground: Ground) -> NDArray[np.str_]:
    """Return class and number of the region that most of each tile lies in; regions of a class that touch are one."""
    block = np.char.add(np.char.add((places.left // (_BLOCK * places.edge_px)).astype(str), ","),
                        (places.top // (_BLOCK * places.edge_px)).astype(str))  # fmt: skip
    found = np.char.add(np.char.add(classes, " at "), block).astype(object)
    for name, area in ground.areas.items():
        rows = np.flatnonzero(classes == name)
        parts = shapely.get_parts(area)
        left, top = places.left[rows], places.top[rows]
        squares = shapely.box(left, top, left + places.edge_px, top + places.edge_px)
        of_square, of_part = shapely.STRtree(parts).query(squares, predicate="intersects")
        shared = shapely.area(shapely.intersection(squares[of_square], parts[of_part]))
        best = np.lexsort((shared, of_square))  # the last of each square shares most with it
        found[rows[of_square[best]]] = [f"{name} {number + 1}" for number in of_part[best].tolist()]
    return found.astype(np.str_)


def _on_slide(grid: Places, size_px: tuple[int, int]) -> Rows:
    right, bottom = grid.left + grid.edge_px, grid.top + grid.edge_px
    return np.flatnonzero((grid.left >= 0) & (grid.top >= 0) & (right <= size_px[0]) & (bottom <= size_px[1]))


def _shares(areas: list[shapely.Geometry], grid: Places) -> Shares:
    """Return ``(n_tiles, n_areas)``."""
    return np.stack([shares_inside(area, grid) for area in areas], axis=1) if areas else np.zeros((len(grid), 0))


def _without_others(areas: list[shapely.Geometry]) -> list[shapely.Geometry]:
    """Return of each area what no other one covers."""
    others = [shapely.union_all(areas[:k] + areas[k + 1 :]) for k in range(len(areas))]
    return [shapely.difference(area, other) for area, other in zip(areas, others, strict=True)]


def _pairs(whole: Shares, names: list[str]) -> Counter[tuple[str, str]]:
    """Return how often each two classes are those that most of a tile lies in."""
    most = np.sort(np.argsort(-whole, axis=1, kind="stable")[:, :2], axis=1)
    return Counter((names[first], names[second]) for first, second in most.tolist())
