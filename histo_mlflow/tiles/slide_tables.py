"""Tables of tiles in a SpatialData zarr, as LazySlide leaves them beside a slide; knows nothing of tile sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import RequestError, TileFormatError

_LABELS = ("label", "labels", "class")


@dataclass(frozen=True, eq=False)
class SlideTable:
    """A table whose rows are tiles and whose columns are features.

    Attributes:
        name: Of the table.
        values: The features, ``(n_tiles, n_features)``, not yet read.
        encoder: What has made them: the name without that of the tiles.
        coordinates: ``(n_tiles, 2)`` x and y in pixels of the slide, or None where the tiles are not there.
        labels: ``(n_tiles,)`` names of classes, or None.
    """

    name: str
    values: Any
    encoder: str
    coordinates: NDArray[np.float64] | None
    labels: NDArray[np.str_] | None


def read(path: Path, name: str | None) -> SlideTable:
    """Return the table `name` of a zarr, or the only one that holds features.

    Raises:
        RequestError: There are several, or none of that name.
        TileFormatError: There is none at all.
    """
    import zarr

    root: Any = zarr.open_group(path, mode="r")
    tables = root.get("tables", {})
    found = [key for key in tables if "X" in tables[key] and "tile_id" in tables[key].get("obs", {})]
    if not found:
        raise TileFormatError(f"{path} has no table of features (tables/NAME with X and obs/tile_id, as LazySlide writes)")
    offers = " or ".join(f"{path}#{shorten(key)}" for key in sorted(found)[:9])
    if name is None and len(found) > 1:
        raise RequestError(f"{path} has several tables of features; name one: {offers}")
    if name is not None and name not in found:
        raise RequestError(f"{path} has no table of features {name!r}; name one: {offers}")
    chosen = name or found[0]
    table = tables[chosen]
    if not hasattr(table["X"], "shape"):
        raise TileFormatError(f"{path}[{chosen}] is sparse; features are a full array: make the table again")
    obs = table["obs"]
    region = _region(obs)
    labels = next((_column(obs, key) for key in _LABELS if key in obs), None)
    return SlideTable(
        name=chosen,
        values=table["X"],
        encoder=chosen.removesuffix(f"_{region}"),
        coordinates=_coordinates(path / "shapes" / region / "shapes.parquet", np.asarray(obs["tile_id"][:])),
        labels=None if labels is None else np.array([str(each) for each in labels]),  # numpy casts no variable strings
    )


@contextmanager
def opened(path: Path, name: str) -> Iterator[Any]:
    """Give what can be sliced by rows to get the features of a table."""
    import zarr

    root: Any = zarr.open_group(path, mode="r")
    yield root["tables"][name]["X"]


def _region(obs: Any) -> str:
    """Return which tiles the rows are: the name of their shapes."""
    names = np.unique(_column(obs, "library_id")) if "library_id" in obs else np.array(["tiles"])
    if len(names) != 1 or "/" in str(names[0]):
        raise TileFormatError(f"the rows of a table are tiles of {len(names)} kinds; one is needed")
    return str(names[0])


def _column(obs: Any, name: str) -> NDArray[Any]:
    """Return a column of an AnnData's obs: an array, or codes into categories."""
    column = obs[name]
    if hasattr(column, "keys"):
        codes = np.asarray(column["codes"][:])
        if (codes < 0).any():
            raise TileFormatError(f"{int((codes < 0).sum())} tiles have no value in the column {name}; give each one")
        named: NDArray[Any] = np.asarray(column["categories"][:])[codes]
        return named
    return np.asarray(column[:])


def _coordinates(file: Path, tile_ids: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return x and y of the tiles, in the order of their ids, or None where the shapes are not there or lack a tile."""
    if not file.is_file():
        return None
    import pandas as pd

    try:
        shapes = pd.read_parquet(file, columns=["tile_id", "x", "y"]).set_index("tile_id")
    except (ValueError, LookupError, OSError):  # of earlier versions, which have only polygons, too
        return None
    if not shapes.index.is_unique or not set(tile_ids.tolist()) <= set(shapes.index):
        return None
    found: NDArray[np.float64] = shapes.loc[tile_ids, ["x", "y"]].to_numpy(np.float64)
    return found
