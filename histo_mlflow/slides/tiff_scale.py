"""How wide a pixel of a TIFF file is: OME's metadata, Aperio's description, or the resolution of the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tifffile

from histo_mlflow.slides.scale import microns_from, microns_of_resolution

_MICRONS = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "in": 25_400.0}


def microns_of_tiff(file: tifffile.TiffFile, page: tifffile.TiffPage, path: Path) -> float | None:
    """Return the width of a pixel of a page in micrometres; None where it is not stated, or can't be true.

    Raises:
        UnreadableSlideError: Pixels are not square.
    """
    if file.is_ome and (stated := _microns_of_ome(file.ome_metadata or "", page)) is not None:
        return microns_from(*stated, path)
    if file.is_svs and (mpp := _aperio_facts(page).get("MPP")) is not None:
        return microns_from(mpp, mpp, path)
    resolutions = (page.tags.get(f"{axis}Resolution") for axis in "XY")
    unit = page.tags.get("ResolutionUnit")
    unit_name = tifffile.RESUNIT(unit.value if unit else 2).name.lower()
    across, down = (tag and microns_of_resolution(_ratio(tag.value), unit_name) for tag in resolutions)
    return microns_from(across, down, path)


def _microns_of_ome(text: str, page: tifffile.TiffPage) -> tuple[object, object] | None:
    """Return the width and height of a pixel in micrometres, of the image of that size."""
    images: Any = tifffile.xml2dict(text).get("OME", {}).get("Image", [])
    for image in images if isinstance(images, list) else [images]:
        facts = image.get("Pixels", {})
        if (facts.get("SizeX"), facts.get("SizeY")) == (page.imagewidth, page.imagelength) and "PhysicalSizeX" in facts:
            return tuple(_in_microns(facts, axis) for axis in "XY")  # type: ignore[return-value] # two axes
    return None


def _in_microns(facts: Mapping[str, Any], axis: str) -> float | None:
    factor = _MICRONS.get(str(facts.get(f"PhysicalSize{axis}Unit", "µm")))
    size = facts.get(f"PhysicalSize{axis}")
    return size * factor if factor and isinstance(size, (int, float)) else None


def _aperio_facts(page: tifffile.TiffPage) -> dict[str, Any]:
    try:
        return tifffile.tifffile.svs_description_metadata(page.description)
    except ValueError:
        return {}


def _ratio(value: tuple[int, int]) -> float:
    return value[0] / value[1] if value[1] else 0.0
