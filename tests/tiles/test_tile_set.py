from dataclasses import replace

import numpy as np
import pytest

from histo_mlflow.errors import RequestError
from histo_mlflow.tiles.tile_set import TileSet, with_class_order


def test_classes_are_matched_by_name_and_not_by_position(tiny_tiles: TileSet) -> None:
    order = tuple(reversed(tiny_tiles.classes))
    turned = with_class_order(tiny_tiles, order)
    assert [order[k] for k in turned.labels] == [tiny_tiles.classes[k] for k in tiny_tiles.labels]


def test_a_class_without_tiles_does_not_matter_and_one_with_tiles_does(tiny_tiles: TileSet) -> None:
    eight = tiny_tiles.classes[:8]
    rows = np.flatnonzero(tiny_tiles.labels < 8)
    without = replace(tiny_tiles, images=tiny_tiles.images[rows], labels=tiny_tiles.labels[rows])
    assert with_class_order(without, eight).classes == eight
    with pytest.raises(RequestError, match="has tiles of TUM"):
        with_class_order(tiny_tiles, eight)
