"""Small arrays beside the pixels of an ``.npz``, checked before they are read: names, numbers, where on a slide tiles lie."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.errors import TileFormatError
from histo_mlflow.tiles.archive import Archive, Member
from histo_mlflow.tiles.on_slides import EDGE, LEFT, SLIDES, TOP, OnSlides
from histo_mlflow.tiles.options import GROUP, PATIENT, REGION, SITE, SLIDE
from histo_mlflow.tiles.tile_set import check_groups

GROUPS, REGIONS = "groups", "regions"
LEVEL_ARRAYS = {"sites": SITE, "patients": PATIENT, GROUPS: GROUP, SLIDES: SLIDE, REGIONS: REGION}
"""The level that each array names, from coarse to fine."""

# What is read whole is bounded by what the tiles ask for: a member of some kilobytes can unpack to gigabytes.
_MAX_NAME_BYTES = 1024
_LAST_CODE_POINT = 0x10FFFF


def read_small(array: Member, is_of_shape: bool, needed: str) -> NDArray[Any]:
    """Return the values in one row; raises `TileFormatError` unread if the shape is not fit or an item too long."""
    if not is_of_shape:
        raise TileFormatError(f"{array.where} has shape {array.shape}; {needed} is needed")
    if array.dtype.itemsize > _MAX_NAME_BYTES:
        raise TileFormatError(
            f"{array.where} has items of {array.dtype.itemsize} bytes; {_MAX_NAME_BYTES} at most can be a name"
        )
    return array.read().ravel()


def read_text(array: Member, is_of_shape: bool, needed: str) -> NDArray[np.str_]:
    """Return names as text, as `read_small` does; raises `TileFormatError` if they are none."""
    if array.dtype.kind not in "USiufb":
        raise TileFormatError(f"{array.where} holds {array.dtype} values; save names as text (.astype(str))")
    names = read_small(array, is_of_shape, needed)
    if names.dtype.kind == "U" and names.dtype.itemsize:  # numpy checks no text that it reads
        code_points = names.view(np.dtype(np.uint32).newbyteorder(names.dtype.byteorder))
        if np.any((code_points > _LAST_CODE_POINT) | ((code_points >= 0xD800) & (code_points < 0xE000))):
            raise TileFormatError(f"{array.where} does not hold text; copy or save it again (.astype(str))")
    try:
        return np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names.astype(np.str_)
    except UnicodeDecodeError as error:
        reason = f"holds bytes that are no UTF-8 ({reason_of(error)})"
        raise TileFormatError(f"{array.where} {reason}; save it as text (.astype(str))") from None


def read_levels(archive: Archive, n_tiles: int) -> Mapping[str, NDArray[np.str_]]:
    """Return the ids ``(n_tiles,)`` that an archive has by level; `groups` that say what another level says are left out."""
    levels = {}
    for key, level in LEVEL_ARRAYS.items():
        if key in archive.keys:
            array = archive.find(key)
            ids = read_text(array, array.shape == (n_tiles,), f"one {level} for each of {n_tiles} tiles")
            levels[level] = check_groups(ids, where=array.where)
    groups = levels.get(GROUP)
    if groups is not None and any(np.array_equal(groups, levels[other]) for other in (PATIENT, SLIDE) if other in levels):
        del levels[GROUP]
    return levels


def read_places(archive: Archive, slides: NDArray[np.str_] | None) -> OnSlides | None:
    """Return where the tiles lie on their `slides` ``(n_tiles,)``, or None if the archive does not say it of each."""
    if slides is None or any(key not in archive.keys for key in (LEFT, TOP, EDGE)):
        return None
    values = {}
    for key in (LEFT, TOP, EDGE):
        array = archive.find(key)
        if array.dtype.kind not in "iu":
            raise TileFormatError(f"{array.where} holds {array.dtype} values; pixels of level 0 are integers: save it so")
        values[key] = read_small(array, array.shape == slides.shape, f"one for each of {math.prod(slides.shape)} tiles")
    return OnSlides(slides, *(values[key].astype(np.int64) for key in (LEFT, TOP, EDGE)))
