"""One picture, of which every pixel is known, as slides in the containers that scanners and programs write."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

Pixels = NDArray[np.uint8]

TILE_PX = 128
GLASS = 243
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def draw_picture(width: int = 1500, height: int = 1100, *, seed: int = 0) -> Pixels:
    """Return glass with two pieces of grainy, stained tissue; no two places of these are alike."""
    generator = np.random.default_rng(seed)
    picture = np.full((height, width, 3), GLASS, dtype=np.uint8)
    for left, top, right, bottom in ((0.1, 0.1, 0.45, 0.9), (0.55, 0.3, 1.0, 0.8)):
        part = picture[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
        part[:] = np.array([170, 90, 160]) + generator.integers(-40, 41, part.shape)
    return picture


def levels_of(picture: Pixels, factors: tuple[int, ...] = (1, 4)) -> list[Pixels]:
    """Return the levels of a pyramid: means of squares; what is left over at the ends is cut off, as scanners do."""
    height, width, _ = picture.shape
    levels = []
    for factor in factors:
        rows, columns = height // factor, width // factor
        blocks = picture[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
        levels.append(np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8))
    return levels


def write_generic(path: Path, picture: Pixels, microns: float | None, *, compression: str = "zlib") -> Path:
    """Write a tiled TIFF with a page for each level; the scale is in its resolution."""
    resolution = {} if microns is None else {"resolution": (1e4 / microns,) * 2, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels_of(picture)):
            file.write(
                level, tile=(TILE_PX, TILE_PX), photometric="rgb", compression=compression, subfiletype=int(number > 0),
                metadata=None, **resolution,
            )  # fmt: skip
    return path


def write_svs(path: Path, picture: Pixels, microns: float | None) -> Path:
    """Write what Aperio's scanners write: level 0, thumbnail, other levels, and the scale in words."""
    levels = levels_of(picture)
    height, width, _ = picture.shape
    scale = "" if microns is None else f"|AppMag = {10 / microns:g}|MPP = {microns:g}"
    about = f"Aperio Image Library v12.0.15\r\n{width}x{height} [0,0 {width}x{height}] ({TILE_PX}x{TILE_PX}) Q=100{scale}"
    tiled = {"tile": (TILE_PX, TILE_PX), "photometric": "rgb", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(levels[0], description=about, **tiled)
        file.write(
            np.ascontiguousarray(picture[::8, ::8]), description="Aperio Image Library v12.0.15", photometric="rgb",
            rowsperstrip=16, metadata=None,
        )  # fmt: skip
        for level in levels[1:]:
            file.write(level, description=about, **tiled)
    return path


def write_ome(path: Path, picture: Pixels, microns: float | None, *, planar: bool = False) -> Path:
    """Write an OME-TIFF with the coarser levels in SubIFDs; the scale is in its XML."""
    levels = levels_of(picture)
    kind = {"tile": (TILE_PX, TILE_PX), "photometric": "rgb", "compression": "zlib"}
    if planar:
        levels, kind = [np.ascontiguousarray(np.moveaxis(level, 2, 0)) for level in levels], kind | {"planarconfig": "separate"}
    physical = {} if microns is None else {f"PhysicalSize{axis}": microns * 1000 for axis in "XY"}
    units = {} if microns is None else {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    with tifffile.TiffWriter(path, ome=True) as file:
        about = {"axes": "SYX" if planar else "YXS", **physical, **units}
        file.write(levels[0], subifds=len(levels) - 1, metadata=about, **kind)
        for level in levels[1:]:
            file.write(level, subfiletype=1, metadata=None, **kind)
    return path


def write_ome_planar(path: Path, picture: Pixels, microns: float | None) -> Path:
    """Write an OME-TIFF in which each colour lies apart."""
    return write_ome(path, picture, microns, planar=True)


def write_dicom(path: Path, picture: Pixels, microns: float | None) -> Path:
    """Write a folder with a DICOM file for each level, not compressed."""
    path.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for number, level in enumerate(levels_of(picture)):
        factor = picture.shape[1] / level.shape[1]
        spacing = None if microns is None else microns * factor / 1000
        file = _dicom_level(level, spacing)
        file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = study, series, frame
        file.ImageType = ["ORIGINAL" if number == 0 else "DERIVED", "PRIMARY", "VOLUME", "NONE" if number == 0 else "RESAMPLED"]
        file.InstanceNumber = number + 1
        file.save_as(path / f"level-{number}.dcm", enforce_file_format=True)
    return path


WRITERS: dict[str, tuple[str, Callable[[Path, Pixels, float | None], Path]]] = {
    "generic": ("slide.tif", write_generic),
    "svs": ("slide.svs", write_svs),
    "ome": ("slide.ome.tif", write_ome),
    "ome-planar": ("slide.ome.tiff", write_ome_planar),
    "dicom": ("slide", write_dicom),
}
"""By the name of the container: what a slide is called in it, and what writes it. All levels are lossless."""


def break_tile(path: Path, number: int) -> None:
    """Overwrite the bytes of a tile of level 0 of a TIFF file."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        offset, count = page.dataoffsets[number], page.databytecounts[number]
    with path.open("r+b") as opened:
        opened.seek(offset)
        opened.write(b"\x55" * count)


def _dicom_level(level: Pixels, spacing_mm: float | None) -> FileDataset:
    height, width, _ = level.shape
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = _WHOLE_SLIDE, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = _WHOLE_SLIDE, meta.MediaStorageSOPInstanceUID
    file.Modality, file.PatientID, file.PatientName, file.StudyID = "SM", "1", "1", "1"
    file.ContainerIdentifier, file.Manufacturer, file.SeriesNumber = "1", "1", 1
    file.StudyDate, file.StudyTime, file.ContentDate, file.ContentTime = "20260101", "000000", "20260101", "000000"
    file.AcquisitionDateTime, file.VolumetricProperties = "20260101000000", "VOLUME"
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.Rows, file.Columns = TILE_PX, TILE_PX
    file.TotalPixelMatrixRows, file.TotalPixelMatrixColumns, file.TotalPixelMatrixFocalPlanes = height, width, 1
    file.LossyImageCompression, file.BurnedInAnnotation, file.SpecimenLabelInImage = "00", "NO", "NO"
    file.ExtendedDepthOfField, file.FocusMethod, file.ImageOrientationSlide = "NO", "AUTO", [0, -1, 0, -1, 0, 0]
    file.DimensionOrganizationType, file.NumberOfOpticalPaths = "TILED_FULL", 1
    file.ImagedVolumeDepth = 0.001
    origin, path, shared = Dataset(), Dataset(), Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0.0
    file.TotalPixelMatrixOriginSequence = [origin]
    path.OpticalPathIdentifier = "1"
    file.OpticalPathSequence = [path]
    measures = Dataset()
    if spacing_mm is not None:
        file.ImagedVolumeWidth, file.ImagedVolumeHeight = width * spacing_mm, height * spacing_mm
        measures.PixelSpacing, measures.SliceThickness = [spacing_mm, spacing_mm], 0.001
    shared.PixelMeasuresSequence = [measures]
    file.SharedFunctionalGroupsSequence = [shared]
    frames = list(_frames(level))
    file.NumberOfFrames = len(frames)
    file.PixelData = b"".join(frames)
    return file


def _frames(level: Pixels) -> Iterator[bytes]:
    rows, columns = (-(-length // TILE_PX) for length in level.shape[:2])
    whole = np.full((rows * TILE_PX, columns * TILE_PX, 3), 255, dtype=np.uint8)
    whole[: level.shape[0], : level.shape[1]] = level
    for row in range(rows):
        for column in range(columns):
            yield whole[row * TILE_PX :, column * TILE_PX :][:TILE_PX, :TILE_PX].tobytes()
