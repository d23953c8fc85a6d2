"""Which slides a file, a folder or a table names; opens none."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.slides.dicom_reader import is_dicom, slides_among, whole_slide_files
from histo_mlflow.slides.scale import COARSEST, FINEST, plausible_microns
from histo_mlflow.tiles.image_files import list_files, walk_folders
from histo_mlflow.tiles.tables import read_rows

_ENDINGS = frozenset(
    {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".czi", ".tif", ".tiff", ".btf", ".svslide", ".vms", ".vmu", ".qptiff"}
)
_OTHER_ENDINGS = frozenset(
    {".isyntax", ".vsi", ".oir", ".kfb", ".sdpc", ".mds", ".tmap", ".png", ".jpg", ".jpeg", ".zip", ".dcm"}
)
_TABLES = frozenset({".csv", ".xlsx"})
_COLUMNS = ("slide", "path", "wsi")


@dataclass(frozen=True)
class SlideFile:
    """A slide that is asked for.

    Attributes:
        path: Its file, or the folder of its DICOM files.
        microns_per_pixel: What a table says of it, before which its file counts for nothing; None if no table does.
        patient: Whose it is, if a table says so.
    """

    path: Path
    microns_per_pixel: float | None = None
    patient: str | None = None

    @property
    def name(self) -> str:
        """What its results are called: the file's name without its ending."""
        return self.path.name if self.path.is_dir() else self.path.name.removesuffix(self.path.suffix).removesuffix(".ome")


@dataclass(frozen=True)
class SlideList:
    """Slides, each with another name, and in words what else there was."""

    slides: tuple[SlideFile, ...]
    passed_over: tuple[str, ...] = ()


def list_slides(source: Path) -> SlideList:
    """Return the slides that a file, a folder (and those below it) or a table (csv, xlsx) names, in the order of their paths.

    A table has a column `slide`, `path` or `wsi`, paths from its own folder on, and may have `mpp` and `patient`; its order is
    kept.

    Raises:
        SourceNotFoundError: There is no such file, or none that a table names.
        RequestError: There are no slides, or two have the same name: their results would be written over each other.
        OptionError: A table has no column of slides, or an `mpp` that is not a number.
    """
    source = source.expanduser()
    if not source.exists():
        raise SourceNotFoundError(f"slides={source}: no such file or folder (looked in {Path.cwd()})")
    if source.suffix.lower() in _TABLES and source.is_file():
        found = SlideList(tuple(_of_table(source)))
    elif source.is_dir():
        found = _of_folder(source)
    else:
        found = SlideList((SlideFile(source),))
    if not found.slides:
        beside = f" ({'; '.join(found.passed_over)})" if found.passed_over else ""
        raise RequestError(f"slides={source} names no slide{beside}; known endings are {' '.join(sorted(_ENDINGS))} .dcm")
    _check_names(found.slides, source)
    return found


def _of_folder(source: Path) -> SlideList:
    slides: list[Path] = []
    passed_over: list[str] = []
    for folder in walk_folders(source):
        files = list_files(folder)
        dicom = whole_slide_files([file for file in files if is_dicom(file)])
        ours = {file for file in files if file.suffix.lower() in _ENDINGS} - {each.path for each in dicom}
        slides += [*ours, *slides_among(dicom, folder)]
        ours |= {each.path for each in dicom}
        passed_over += [str(file) for file in files if file not in ours and file.suffix.lower() in _OTHER_ENDINGS]
    return SlideList(tuple(map(SlideFile, sorted(slides))), tuple(passed_over))


def _of_table(source: Path) -> list[SlideFile]:
    rows = read_rows(source, "slides")
    column = next((name for name in _COLUMNS if name in rows), None)
    if column is None:
        raise OptionError(f"slides={source} has no column {', '.join(_COLUMNS)}; its columns are {' '.join(rows)}")
    slides = []
    for number, row in enumerate(rows.to_dict("records"), start=2):
        if not row[column]:
            raise OptionError(f"slides={source}, row {number}: no slide is named")
        path = source.parent / Path(row[column]).expanduser()
        if not path.exists():
            raise SourceNotFoundError(
                f"slides={source}, row {number}: {shorten(row[column])} does not exist; paths begin at the table's folder"
            )
        slides.append(
            SlideFile(path, _microns(row.get("mpp", ""), f"slides={source}, row {number}"), row.get("patient") or None)
        )
    return slides


def _microns(text: str, where: str) -> float | None:
    if not text:
        return None
    if (microns := plausible_microns(text)) is None:
        raise OptionError(f"{where}: mpp={shorten(text)} is no number of micrometres between {FINEST:g} and {COARSEST:g}")
    return microns


def _check_names(slides: Iterable[SlideFile], source: Path) -> None:
    """Compared as a file system does that takes no notice of capitals."""
    first: dict[str, Path] = {}
    for slide in slides:
        other = first.setdefault(slide.name.casefold(), slide.path)
        if other is not slide.path:
            raise RequestError(
                f"slides={source}: {other} and {slide.path} have the same name, and so would their results; rename one, or "
                "give them one after the other"
            )


def files_of(path: Path) -> list[Path]:
    """Return a slide's files: itself, all of its folder, or of MRXS what lies in the folder of its name too."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    beside = path.with_suffix("") if path.suffix.lower() == ".mrxs" else None
    return [path, *(files_of(beside) if beside is not None and beside.is_dir() else [])]
