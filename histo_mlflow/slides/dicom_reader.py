"""Slides as DICOM (supplement 145), one file for each level or more; files of a series belong together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from wsidicom import WsiDicom
from wsidicom.errors import WsiDicomNoResolutionError

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.errors import SourceNotFoundError, UnreadableSlideError
from histo_mlflow.slides.openslide_reader import open_openslide
from histo_mlflow.slides.scale import microns_from
from histo_mlflow.slides.slide import Slide, read_inside

_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_MAGIC_AT, _MAGIC = 128, b"DICM"


@dataclass(frozen=True)
class DicomFile:
    """What the header of a file says of whose it is.

    Attributes:
        path: The file.
        series: Files of one slide have the same.
        instance: No two files have the same, but copies.
    """

    path: Path
    series: str
    instance: str


@dataclass(frozen=True, eq=False)
class DicomSlide:
    """A slide of DICOM files; see `Slide`."""

    path: Path
    size_px: tuple[int, int]
    downsamples: tuple[float, ...]
    microns_per_pixel: float | None
    _wsi: WsiDicom = field(repr=False)

    def read(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """See `Slide.read`."""
        known = list(self._wsi.pyramid)[level]

        def read(x: int, y: int, n_x: int, n_y: int) -> NDArray[np.uint8]:
            return np.array(self._wsi.read_region((x, y), known.level, (n_x, n_y)).convert("RGB"))

        try:
            return read_inside((known.size.width, known.size.height), (left, top, width, height), read)
        except Exception as error:  # its errors have no base of their own, and those of decoders come beside them
            raise UnreadableSlideError(
                f"{self.path}: {width} x {height} pixels at {left}, {top} of level {level} can't be read ({reason_of(error)})"
            ) from None

    def close(self) -> None:
        """See `Slide.close`."""
        self._wsi.close()


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, whatever its name."""
    try:
        with path.open("rb") as file:
            file.seek(_MAGIC_AT)
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def whole_slide_files(files: Iterable[Path]) -> list[DicomFile]:
    """Return those files that are DICOM of a whole slide; others and broken ones are left out."""
    found = (_read_header(path) for path in files)
    return [each for each in found if each is not None]


def slides_among(files: Sequence[DicomFile], folder: Path) -> list[Path]:
    """Return by which path each slide of a folder is opened: the folder, if it holds one, or a file of each.

    Copies of one instance, each with pixels of its own, are slides of their own: they can't belong together.
    """
    copied = {each.instance for each in files if [other.instance for other in files].count(each.instance) > 1}
    slides = {(each.series, each.path if each.instance in copied else None): each.path for each in reversed(files)}
    return [folder] if len(slides) == 1 else sorted(slides.values())


def files_of_slide(path: Path) -> list[Path]:
    """Return the files of the slide that a folder holds, or of which a file is one: its series, without copies of it.

    Raises:
        SourceNotFoundError: The folder holds no slide, or several.
    """
    beside = whole_slide_files(each for each in sorted((path if path.is_dir() else path.parent).iterdir()) if is_dicom(each))
    if not path.is_dir():
        own = _read_header(path)
        series = [each for each in beside if own and each.series == own.series and each.instance != own.instance]
        return [path, *(each.path for each in series)]
    slides = slides_among(beside, path)
    if not slides:
        raise SourceNotFoundError(f"{path} is a folder without a DICOM slide; name a slide's file")
    if slides != [path]:
        raise SourceNotFoundError(f"{path} holds {len(slides)} DICOM slides; name one of them, such as {slides[0].name}")
    return [each.path for each in beside]


def open_dicom(path: Path, files: Sequence[Path], microns_per_pixel: float | None) -> Slide:
    """Open the files of one slide; a given scale goes before theirs. Those that state none are left to OpenSlide.

    Raises:
        UnreadableSlideError: They hold no picture of a whole slide, one that is not RGB, or one that can't be decoded.
    """
    try:
        with disable_value_validation():  # of identifiers that are too long, by which no picture is worse
            wsi = WsiDicom.open(list(files))
    except WsiDicomNoResolutionError:
        return replace(open_openslide(files[0], microns_per_pixel), path=path)
    except Exception as error:  # its errors have no base of their own, and those of decoders come beside them
        raise UnreadableSlideError(f"{path} holds no DICOM picture of a slide that can be read ({reason_of(error)})") from None
    try:
        levels = list(wsi.pyramid)
        spacing = levels[0].pixel_spacing
        mode = wsi.read_region((0, 0), levels[0].level, (1, 1)).mode
    except Exception as error:  # its errors have no base of their own, and those of decoders come beside them
        raise UnreadableSlideError(f"{path} holds no DICOM picture of a slide that can be read ({reason_of(error)})") from None
    if mode != "RGB":
        wsi.close()
        raise UnreadableSlideError(f"{path} holds grey values, not colours; give a stained slide in RGB of 8 bits")
    size = levels[0].size
    return DicomSlide(
        path,
        (size.width, size.height),
        tuple(size.width / level.size.width for level in levels),
        microns_per_pixel or microns_from(spacing and spacing.width * 1000, spacing and spacing.height * 1000, path),
        wsi,
    )


def _read_header(path: Path) -> DicomFile | None:
    try:
        with disable_value_validation():
            header = pydicom.dcmread(
                path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"]
            )
            if header.SOPClassUID != _WHOLE_SLIDE:
                return None
            return DicomFile(path, str(header.SeriesInstanceUID), str(header.SOPInstanceUID))
    except (InvalidDicomError, OSError, AttributeError, ValueError, EOFError):
        return None
