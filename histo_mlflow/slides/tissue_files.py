"""Tissue as files that a person can look at, edit and give back: GeoJSON for QuPath, or a mask as PNG."""

import json
import uuid
from pathlib import Path

import numpy as np
import shapely
from PIL import Image

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.errors import AnnotationError, OptionError, SourceNotFoundError
from histo_mlflow.slides.annotations import IGNORE, read_annotations
from histo_mlflow.slides.outlines import filled, outlines_of
from histo_mlflow.slides.overview import overview_downsample
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.tissue import Mask, Tissue

_CLASS, _COLOUR = "Tissue", (0, 114, 178)
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "https://geojson.org/histo-mlflow/tissue")
_MOST_OFF_PX = 1.0
_REGIONS = (".geojson", ".json", ".gz", ".zip")


def read_tissue(path: Path, slide: Slide) -> Tissue:
    """Return the tissue that a file says a slide has, instead of what would be found.

    A GeoJSON holds regions in pixels of level 0, of any class or none: all are tissue, but those of QuPath's class ``Ignore*``,
    which are cut out. A PNG is a picture of the whole slide, at any scale, in which tissue is not black.

    Raises:
        SourceNotFoundError: There is no such file.
        OptionError: It is neither, or the mask has another shape than the slide.
        AnnotationError: The GeoJSON can't be read, or its regions lie beside the slide.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"tissue={path}: no such file; give a mask (.png) or regions (.geojson)")
    name = path.name.lower()
    if name.endswith(".png"):
        return _of_mask(path, slide)
    if name.endswith(_REGIONS):
        return _of_regions(path, slide)
    raise OptionError(f"tissue={path} is neither a mask (.png) nor regions ({', '.join(_REGIONS[:4])})")


def write_tissue(tissue: Tissue, slide: Slide, path: Path) -> None:
    """Write tissue as a mask (``.png``, white on black) or as regions that QuPath opens (``.geojson``), whole or not at all.

    Raises:
        OptionError: The name ends in neither.
        WorkError: The file can't be written.
    """
    if path.suffix not in {".png", ".geojson"}:
        raise OptionError(f"{path}: tissue is written as .png or .geojson")
    with written_whole(path) as draft:
        if path.suffix == ".png":
            Image.fromarray(tissue.mask).save(draft, format="PNG")
        else:
            draft.write_text(json.dumps(_as_geojson(tissue, slide), separators=(",", ":")) + "\n", encoding="utf-8")


def _of_mask(path: Path, slide: Slide) -> Tissue:
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGBA" if "A" in opened.getbands() or "transparency" in opened.info else "RGB")
            bands = np.asarray(picture)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise OptionError(f"tissue={path} can't be read as a picture ({reason_of(error)}); save it as PNG again") from None
    mask: Mask = bands[..., :3].max(axis=2) > 0
    if bands.shape[2] == 4:
        mask = mask & (bands[..., 3] > 0)
    height, width = mask.shape
    downsample = slide.size_px[0] / width
    # A side is rounded to whole pixels, up or down, and so is the other.
    if abs(slide.size_px[1] / downsample - height) > _MOST_OFF_PX * max(1.0, slide.size_px[1] / slide.size_px[0]):
        raise OptionError(
            f"tissue={path} has {width} x {height} px, and {slide.path.name} {slide.size_px[0]} x {slide.size_px[1]}, which is "
            "another shape; a mask shows the whole slide"
        )
    return Tissue(mask, downsample)


def _of_regions(path: Path, slide: Slide) -> Tissue:
    regions = read_annotations(path, unnamed=_CLASS).regions
    tissue = shapely.union_all([region.shape for region in regions if region.name != IGNORE])
    tissue = shapely.difference(tissue, shapely.union_all([region.shape for region in regions if region.name == IGNORE]))
    if regions and not tissue.is_empty and not shapely.intersects(tissue, shapely.box(0, 0, *slide.size_px)):
        raise AnnotationError(
            f"tissue={path}: its regions lie beside {slide.path.name}, which has {slide.size_px[0]} x {slide.size_px[1]} px; "
            "give the regions of this slide, in pixels of level 0"
        )
    downsample = overview_downsample(slide)
    shape = (int(np.ceil(slide.size_px[1] / downsample)), int(np.ceil(slide.size_px[0] / downsample)))
    return Tissue(filled(tissue, shape, downsample), downsample)


def _as_geojson(tissue: Tissue, slide: Slide) -> dict[str, object]:
    pieces = outlines_of(tissue.mask, tissue.downsample, slide.size_px)
    features = [
        {
            "type": "Feature",
            "id": str(uuid.uuid5(_IDS, f"{slide.path.name} {number}")),
            "geometry": shapely.geometry.mapping(piece),
            "properties": {"objectType": "annotation", "classification": {"name": _CLASS, "color": list(_COLOUR)}},
        }
        for number, piece in enumerate(pieces)
    ]
    return {"type": "FeatureCollection", "features": features}
