"""The zarr of a slide opens in SpatialData and LazySlide, and in what reads such tables here."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
import zarr
from hypothesis import HealthCheck, given, settings

from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.spatial_table import TABLE, TILES, write_spatial_table
from histo_mlflow.tiles import slide_tables
from tests.conftest import PROJECT
from tests.slides.scored_slides import draw_scored, scored_slides

READERS = os.environ.get("HISTO_LAZYSLIDE")
"""The Python of an environment with wsidata (pip install wsidata openslide-bin), which needs other versions than ours."""


def _write(scored: ScoredSlide, folder: Path) -> Path:
    write_spatial_table(scored, folder / "slide.zarr")
    return folder / "slide.zarr"


def test_our_own_reader_takes_it_and_its_answers_for_no_labels(tmp_path: Path) -> None:
    scored = draw_scored((4, 5), classes=("A", "B"))
    table = slide_tables.read(_write(scored, tmp_path), None)
    assert (table.name, table.encoder, table.labels) == (TABLE, "probabilities", None)
    np.testing.assert_array_equal(table.values[:], scored.probabilities)
    np.testing.assert_array_equal(table.coordinates, np.stack([scored.places.left, scored.places.top], axis=1))


def test_shapes_are_geoparquet_with_the_squares_of_the_tiles(tmp_path: Path) -> None:
    scored = draw_scored((3, 3), stride=0.5)
    file = _write(scored, tmp_path) / "shapes" / TILES / "shapes.parquet"
    rows = pq.read_table(file)
    geo = json.loads(rows.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"]["bbox"] == [0, 0, 448, 448]
    left, top = scored.places.left, scored.places.top
    squares = shapely.from_wkb(rows["geometry"].to_numpy())
    assert shapely.equals(squares, shapely.box(left, top, left + 224, top + 224)).all()
    assert rows["predicted"].to_pylist() == [scored.classes[k] for k in scored.called]
    assert rows["abstain"].to_pylist() == scored.abstained.tolist()
    np.testing.assert_array_equal(rows["prob_TUM"].to_numpy(), scored.probabilities[:, 8])
    assert pd.read_parquet(file)["tile_id"].tolist() == list(range(9))


def test_the_scale_and_the_tiles_are_said_as_lazyslide_says_them(tmp_path: Path) -> None:
    scored = draw_scored((3, 3), stride=0.5)
    attributes = dict(zarr.open_group(_write(scored, tmp_path), mode="r").attrs)
    width, height = scored.size_px
    assert attributes["slide_properties"] == {"shape": [height, width], "mpp": 0.25}
    assert attributes["tile_spec"][TILES] | {"height": 224, "stride_width": 112, "mpp": 0.25} == attributes["tile_spec"][TILES]


def test_a_slide_without_tiles_has_no_elements(tmp_path: Path) -> None:
    assert list(zarr.open_group(_write(draw_scored((0, 0)), tmp_path), mode="r")) == []


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scored_slides())
def test_it_is_written_whatever_the_slide(tmp_path: Path, scored: ScoredSlide) -> None:
    zarr_file = _write(scored, tmp_path)
    if len(scored):
        np.testing.assert_array_equal(slide_tables.read(zarr_file, None).values[:], scored.probabilities)


_OPEN = """
import sys
import spatialdata
from wsidata import open_wsi
for store, n_tiles in (("full.zarr", 130), ("empty.zarr", 0)):
    data = spatialdata.read_zarr(store)
    wsi = open_wsi(sys.argv[1], store=store)
    assert wsi.properties.mpp == 0.25, "the scale that was given, not the file's"
    assert len(list(data.gen_elements())) == (2 if n_tiles else 0)
    if n_tiles:
        table = data.tables["probabilities_tiles"]
        assert table.shape == (n_tiles, 3), table.shape
        assert table.var_names.tolist() == ["A a", "B:b", "c.C"]
        assert {"predicted", "abstain", "spread"} <= set(table.obs)
        assert spatialdata.match_element_to_table(data, "tiles", "probabilities_tiles")[1].n_obs == n_tiles
        assert wsi.fetch.features_anndata("probabilities").shape == (n_tiles, 3)
        assert (wsi.tile_spec("tiles").base_width, wsi.tile_spec("tiles").base_stride_width) == (200, 200)
        assert next(iter(wsi.iter.tile_images("tiles"))).image.shape == (200, 200, 3)
        data.write("again.zarr")
        assert spatialdata.read_zarr("again.zarr").tables["probabilities_tiles"].shape == table.shape
"""


@pytest.mark.skipif(not READERS, reason="HISTO_LAZYSLIDE names no Python with wsidata and spatialdata")
def test_spatialdata_and_lazyslide_open_it(tmp_path: Path, real_data: Path) -> None:
    drawn = draw_scored((13, 10), classes=("A a", "B:b", "c.C"), edge_px=200)
    rest = (0.25, drawn.places, drawn.classes, drawn.probabilities, drawn.abstained, drawn.spread)
    write_spatial_table(ScoredSlide("cmu-1-small-region", (2220, 2967), *rest), tmp_path / "full.zarr")
    none = draw_scored((0, 0), classes=("A", "B"))
    empty = ScoredSlide("cmu-1-small-region", (2220, 2967), 0.25, none.places, none.classes, none.probabilities)
    write_spatial_table(empty, tmp_path / "empty.zarr")
    command = [PROJECT / str(READERS), "-c", _OPEN, real_data / "cmu-1-small-region.svs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
