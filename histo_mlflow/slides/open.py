"""Any slide's file as a `Slide`, by the reader that serves it best."""

from pathlib import Path

from histo_mlflow.errors import SourceNotFoundError, UnreadableSlideError
from histo_mlflow.slides.dicom_reader import files_of_slide, is_dicom, open_dicom
from histo_mlflow.slides.openslide_reader import detect_maker, open_openslide
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.tiff_levels import UnsuitedTiffError
from histo_mlflow.slides.tiff_reader import open_tiff

_WITHOUT_RULES = frozenset({"aperio", "generic-tiff"})
"""Kinds of files, in OpenSlide's words, whose tiles need only be put beside each other; in others they overlap, or lack."""


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
    maker = detect_maker(path)
    if maker not in {None, *_WITHOUT_RULES}:
        return open_openslide(path, microns_per_pixel)
    try:
        return open_tiff(path, microns_per_pixel)
    except UnsuitedTiffError as error:
        if maker is None:
            raise UnreadableSlideError(
                f"{path} can't be read as a slide ({error}); export it as OME-TIFF, SVS or DICOM"
            ) from None
        return open_openslide(path, microns_per_pixel)
