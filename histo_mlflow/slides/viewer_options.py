"""What viewers are given of a scored slide; imports neither numpy nor a library of geometry."""

from dataclasses import dataclass

from histo_mlflow.options import Options, option


@dataclass(frozen=True)
class ViewerOptions(Options):
    """Objects for viewers: what QuPath shows of a slide."""

    objects: str = option(
        "tile", "What each tile is in QuPath; as a detection it can be counted there.", choices=("tile", "detection")
    )
    regions: bool = option(True, "Also write regions: neighbouring tiles of one class, merged into an annotation.")
    smallest_region_um2: float = option(
        50_000.0, "Leave out smaller regions, in square microns; QuPath stands tens of thousands of annotations.", at_least=0
    )
    lock_regions: bool = option(
        True, "Lock the annotations, so that none is moved by mistake; QuPath unlocks them to be edited."
    )
