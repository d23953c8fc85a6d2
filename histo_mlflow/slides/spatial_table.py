"""A scored slide as a SpatialData zarr, as LazySlide keeps one beside a slide: shapes of tiles, and a table of probabilities.

Written as spatialdata 0.8 and wsidata 0.12 write it, with zarr and pyarrow alone. SpatialData holds no empty shapes and no
table without rows: the zarr of a slide without tiles has neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.slides.scored import ScoredSlide

if TYPE_CHECKING:
    import pyarrow as pa

TILES = "tiles"
TABLE = f"probabilities_{TILES}"  # so LazySlide finds the features "probabilities" of the tiles "tiles"

_REGION_KEY, _INSTANCE_KEY = "library_id", "tile_id"
# No model's answer may be called "label": what reads features from such tables would take it for the truth.
_PREDICTED = "predicted"
_SOFTWARE = "0.8.0"  # the format that is followed
_BLOCK_TILES = 5_000
_ROWS_A_CHUNK = 100_000


def write_spatial_table(scored: ScoredSlide, path: Path) -> None:
    """Write the zarr of a slide, whole or not at all."""
    import zarr

    with written_whole(path) as draft:
        root = zarr.open_group(draft, mode="w", zarr_format=3)
        width, height = scored.size_px
        root.attrs.update(
            {
                "spatialdata_attrs": {"version": "0.2", "spatialdata_software_version": _SOFTWARE},
                "slide_properties": {"shape": [height, width], "mpp": scored.microns_per_pixel},
                "tile_spec": {TILES: _tile_spec(scored)},
            }
        )
        if not len(scored):
            return
        shapes = root.create_group("shapes").create_group(TILES)
        shapes.attrs.update(_shapes_attributes())
        _write_shapes(scored, draft / "shapes" / TILES / "shapes.parquet")
        _write_table(scored, root.create_group("tables").create_group(TABLE))


def _tile_spec(scored: ScoredSlide) -> dict[str, Any]:
    edge, stride = scored.places.edge_px, max(1, round(scored.places.stride_px))
    return {
        "height": edge,
        "width": edge,
        "stride_height": stride,
        "stride_width": stride,
        "mpp": scored.microns_per_pixel,
        "ops_level": 0,
        "ops_downsample": 1.0,
        "base_level": 0,
        "base_downsample": 1.0,
        "tissue_name": None,
    }


def _shapes_attributes() -> dict[str, Any]:
    axes = [{"name": name, "type": "space", "unit": "unit"} for name in "xy"]
    identity = {"type": "identity", "input": {"name": "xy", "axes": axes}, "output": {"name": "global", "axes": axes}}
    return {
        "encoding-type": "ngff:shapes",
        "axes": ["x", "y"],
        "coordinateTransformations": [identity],
        "spatialdata_attrs": {"version": "0.3"},
    }


def _write_shapes(scored: ScoredSlide, path: Path) -> None:
    """Write the tiles as GeoParquet: their squares, overlapping or not, with what the model says of each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    places = scored.places
    first, last = (places.left.min(), places.top.min()), (places.left.max(), places.top.max())
    bounds = [*map(float, first), *(float(corner + places.edge_px) for corner in last)]
    column = {"encoding": "WKB", "crs": None, "geometry_types": ["Polygon"], "bbox": bounds}
    geo = {"primary_column": "geometry", "columns": {"geometry": column}, "version": "1.1.0"}
    columns = {"tile_id": pa.int64(), "x": pa.int64(), "y": pa.int64(), "tissue_id": pa.int64(), "geometry": pa.binary()}
    columns |= {_PREDICTED: pa.dictionary(pa.int32(), pa.string())}
    columns |= {f"prob_{name}": pa.float32() for name in scored.classes}
    columns |= {"abstain": pa.bool_()} if scored.abstained is not None else {}
    columns |= {"spread": pa.float32()} if scored.spread is not None else {}
    schema = pa.schema(list(columns.items()), metadata={"geo": json.dumps(geo)})
    with pq.ParquetWriter(path, schema) as writer:
        for block in _blocks(scored, schema):
            writer.write_table(block)


def _blocks(scored: ScoredSlide, schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa
    import shapely

    edge, classes = scored.places.edge_px, pa.array(scored.classes, pa.string())
    for first in range(0, len(scored), _BLOCK_TILES):
        rows = slice(first, first + _BLOCK_TILES)
        left, top, probabilities = scored.places.left[rows], scored.places.top[rows], scored.probabilities[rows]
        columns: list[Any] = [np.arange(first, first + len(left)), left, top, np.zeros(len(left), np.int64)]
        columns += [pa.array(shapely.to_wkb(shapely.box(left, top, left + edge, top + edge)).tolist(), pa.binary())]
        columns += [pa.DictionaryArray.from_arrays(pa.array(scored.called[rows].astype(np.int32)), classes)]
        columns += [np.ascontiguousarray(of_class) for of_class in probabilities.T]
        columns += [each[rows] for each in (scored.abstained, scored.spread) if each is not None]
        yield pa.Table.from_arrays([pa.array(each) for each in columns], schema=schema)


def _write_table(scored: ScoredSlide, table: Any) -> None:
    """Write an AnnData: tiles in rows, classes in columns, probabilities in X."""
    table.attrs.update(
        {
            "encoding-type": "anndata",
            "encoding-version": "0.1.0",
            "spatialdata-encoding-type": "ngff:regions_table",
            "region": TILES,
            "region_key": _REGION_KEY,
            "instance_key": _INSTANCE_KEY,
            "version": "0.2",
        }
    )
    _write_array(table, "X", scored.probabilities)
    obs = table.create_group("obs")
    names = [_PREDICTED] + ["abstain"] * (scored.abstained is not None) + ["spread"] * (scored.spread is not None)
    _begin_frame(obs, [*names, _INSTANCE_KEY, _REGION_KEY], np.arange(len(scored)).astype(str).tolist())
    _write_categories(obs, _PREDICTED, scored.called, scored.classes)
    if scored.abstained is not None:
        _write_array(obs, "abstain", scored.abstained)
    if scored.spread is not None:
        _write_array(obs, "spread", scored.spread)
    _write_array(obs, _INSTANCE_KEY, np.arange(len(scored)))
    _write_categories(obs, _REGION_KEY, np.zeros(len(scored), np.int64), [TILES])
    _begin_frame(table.create_group("var"), [], scored.classes)
    for name in ("layers", "obsm", "obsp", "varm", "varp"):
        _begin_mapping(table.create_group(name))
    uns = _begin_mapping(table.create_group("uns"))
    facts = _begin_mapping(uns.create_group("spatialdata_attrs"))
    for name, value in {"region": TILES, "region_key": _REGION_KEY, "instance_key": _INSTANCE_KEY}.items():
        array = facts.create_array(name, shape=(), dtype="str")
        array[...] = value
        array.attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})


def _begin_mapping(group: Any) -> Any:
    group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
    return group


def _begin_frame(group: Any, columns: Sequence[str], index: Sequence[str]) -> None:
    group.attrs.update(
        {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index", "column-order": list(columns)}
    )
    _write_texts(group, "_index", index)


def _write_categories(group: Any, name: str, codes: NDArray[np.int64], categories: Sequence[str]) -> None:
    column = group.create_group(name)
    column.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
    _write_texts(column, "categories", categories)
    _write_array(column, "codes", codes.astype(np.int32))


def _write_texts(group: Any, name: str, texts: Sequence[str]) -> None:
    array = group.create_array(name, shape=(len(texts),), chunks=(_rows_a_chunk(len(texts)),), dtype="str")
    array[:] = np.array(texts, dtype=object)
    array.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def _write_array(group: Any, name: str, values: NDArray[Any]) -> None:
    array = group.create_array(name, data=np.ascontiguousarray(values), chunks=(_rows_a_chunk(len(values)), *values.shape[1:]))
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def _rows_a_chunk(n_rows: int) -> int:
    return min(n_rows, _ROWS_A_CHUNK)
