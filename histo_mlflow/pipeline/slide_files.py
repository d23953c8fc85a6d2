"""All files that are written of a scored slide, into one folder."""

from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.pipeline.slide import SlideScore
from histo_mlflow.slides.geojson import write_geojson
from histo_mlflow.slides.probability_map import write_probability_map
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.tile_table import write_tile_table
from histo_mlflow.slides.viewer_options import ViewerOptions

PICTURE, GEOJSON, TABLE, MAP, SPATIAL = ".png", ".geojson.gz", ".csv", ".ome.tif", ".zarr"
ENDINGS = (PICTURE, GEOJSON, TABLE, MAP, SPATIAL)
"""What stands behind the name of a slide, what a person opens first before."""


@dataclass(frozen=True)
class FileWriter:
    """Writes the files of slides, as viewers are to be given them."""

    viewer: ViewerOptions

    def __call__(self, slide: Slide, score: SlideScore, folder: Path) -> None:
        """Write all files of a slide into `folder`; raises `WorkError` where that can't be done."""
        scored = score.scored
        write_tile_table(scored, folder / f"{scored.name}{TABLE}")
        write_geojson(scored, folder / f"{scored.name}{GEOJSON}", self.viewer)
        write_probability_map(scored, folder / f"{scored.name}{MAP}")
