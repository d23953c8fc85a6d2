"""Several sets seen as one, and some tiles of a set as a set of their own; copies no pixel."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import RequestError
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.on_slides import join_places
from histo_mlflow.tiles.pixels import as_joined, join_pixels
from histo_mlflow.tiles.tile_set import TileSet, order_classes, with_class_order


def join_sets(sets: Sequence[TileSet]) -> TileSet:
    """Return the tiles of all sets, one set after the other; classes and groups of the same name are the same.

    The name of a tile begins with the source of its set.

    Raises:
        RequestError: The tiles are not of one size or scale, or some sets have groups and others none.
    """
    first = sets[0]
    for other in sets[1:]:
        _check_alike(first, other)
    classes = order_classes(list(dict.fromkeys(name for each in sets for name in each.classes)), where=_sources(sets))
    ordered = [with_class_order(each, classes) for each in sets]
    images = join_pixels([each.images for each in sets])
    labels = np.concatenate([each.labels for each in ordered])
    levels = {level: np.concatenate([each.known_levels[level] for each in sets]) for level in first.known_levels}
    joined = replace(
        first,
        images=images,
        labels=labels,
        classes=classes,
        source=_sources(sets),
        fingerprint=fingerprint_of(images, labels),
        is_synthetic=any(each.is_synthetic for each in sets),
        passed_over=tuple(note for each in sets for note in each.passed_over),
        notes=tuple(note for each in sets for note in each.notes),
        given_names=np.concatenate([np.strings.add(f"{each.source}/", each.names) for each in sets]),
        on_slides=join_places([each.on_slides for each in sets]),
    )
    return joined.with_levels(levels)


def select(tiles: TileSet, rows: NDArray[np.int64]) -> TileSet:
    """Return the tiles at the positions `rows`, with their names and with a fingerprint of their own."""
    images, labels = as_joined(tiles.images).select(rows), tiles.labels[rows]
    return replace(
        tiles,
        images=images,
        labels=labels,
        groups=None if tiles.groups is None else tiles.groups[rows],
        levels={level: ids[rows] for level, ids in tiles.levels.items()},
        fingerprint=fingerprint_of(images, labels),
        given_names=tiles.names[rows],
        copies=None if tiles.copies is None else tiles.copies[rows],
        on_slides=None if tiles.on_slides is None else tiles.on_slides.at(rows),
    )


def _sources(sets: Sequence[TileSet]) -> str:
    return ",".join(each.source for each in sets)


def _check_alike(first: TileSet, other: TileSet) -> None:
    pair = f"{first.source} and {other.source}"
    if first.form != other.form:
        raise RequestError(f"{pair} hold {first.form} and {other.form}; give sets of one form")
    if first.tile_size_px != other.tile_size_px:
        raise RequestError(
            f"{pair} have tiles of {first.tile_size_px} and {other.tile_size_px} px; save them at one size to learn from both"
        )
    if first.microns_per_pixel != other.microns_per_pixel:
        raise RequestError(
            f"{pair} state {first.microns_per_pixel or 'no'} and {other.microns_per_pixel or 'no'} microns per pixel; tiles of "
            "one scale are needed: save them so, or give microns_per_pixel if it is the same"
        )
    if first.known_levels.keys() != other.known_levels.keys():
        known, lacks = (first, other) if first.known_levels else (other, first)
        raise RequestError(
            f"{known.source} has groups and {lacks.source} has not; name those of all with groups=, or give groups=none"
        )
