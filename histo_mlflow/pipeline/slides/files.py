"""All files that are written of a scored slide, into one folder."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from histo_mlflow.pipeline.slides.score import SlideScore
from histo_mlflow.slides.geojson import write_geojson
from histo_mlflow.slides.heat_map import Backdrop, write_heat_map
from histo_mlflow.slides.overview import read_overview
from histo_mlflow.slides.probability_map import write_probability_map
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.spatial_table import write_spatial_table
from histo_mlflow.slides.tile_table import write_tile_table
from histo_mlflow.slides.tissue_files import write_tissue
from histo_mlflow.slides.viewer_options import ViewerOptions

PICTURE, GEOJSON, TABLE, TISSUE, MAP, SPATIAL = ".png", ".geojson.gz", ".csv", ".tissue.geojson", ".ome.tif", ".zarr"
ENDINGS = (PICTURE, GEOJSON, TABLE, TISSUE, MAP, SPATIAL)
"""What stands behind the name of a slide, what a person opens first before."""

_PICTURE_PX = 2000  # of the longer side: more than the heat map shows of it


@dataclass(frozen=True)
class FileWriter:
    """Writes the files of slides.

    Attributes:
        viewer: What viewers are to be given.
        model: Name and version of the model, as the heat map shows it.
    """

    viewer: ViewerOptions
    model: str

    def __call__(self, slide: Slide, score: SlideScore, folder: Path) -> None:
        """Write all files of a slide into `folder`; raises `WorkError` where that can't be done."""
        scored = score.scored
        write_tile_table(scored, folder / f"{scored.name}{TABLE}")
        write_geojson(scored, folder / f"{scored.name}{GEOJSON}", self.viewer)
        write_probability_map(scored, folder / f"{scored.name}{MAP}")
        write_spatial_table(scored, folder / f"{scored.name}{SPATIAL}")
        write_tissue(score.tissue, slide, folder / f"{scored.name}{TISSUE}")
        picture, _ = read_overview(slide, max(slide.size_px) / _PICTURE_PX)
        today = datetime.now(UTC).strftime("%Y-%m-%d")
        write_heat_map(scored, Backdrop(picture, score.tissue, self.model, today), folder / f"{scored.name}{PICTURE}")
