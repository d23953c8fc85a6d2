"""Any slide's file as a `Slide`."""

from pathlib import Path

from histo_mlflow.errors import SourceNotFoundError
from histo_mlflow.slides.dicom_reader import files_of_slide, is_dicom, open_dicom
from histo_mlflow.slides.openslide_reader import open_openslide
from histo_mlflow.slides.slide import Slide


def open_slide(path: Path, microns_per_pixel: float | None = None) -> Slide:
    """Open a slide, whatever its maker; a given scale goes before what its file says.

    Args:
        path: A file, or the folder of a DICOM slide. Of a DICOM file the others of its series, beside it, are opened too.
        microns_per_pixel: Width of a pixel of level 0; None: as the file says.

    Raises:
        SourceNotFoundError: There is no such file, or the folder does not hold one slide.
        UnreadableSlideError: It is no slide, is not whole, or holds what can't be shown as RGB.
    """
    if not path.exists():
        raise SourceNotFoundError(f"{path}: no such slide")
    if path.is_dir() or is_dicom(path):
        return open_dicom(path, files_of_slide(path), microns_per_pixel)
    return open_openslide(path, microns_per_pixel)
