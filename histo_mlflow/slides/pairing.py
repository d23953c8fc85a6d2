"""Which file of annotations belongs to which slide: by its name, or as a table says; reads no annotations and no slides."""

from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.slides.annotations import ENDINGS
from histo_mlflow.slides.listing import SlideFile, SlideList
from histo_mlflow.tiles.image_files import list_files, walk_folders
from histo_mlflow.tiles.tables import read_rows

_ENDINGS = tuple(ending for ending in ENDINGS if "json" in ending)
_COLUMN = "annotations"


@dataclass(frozen=True)
class AnnotatedSlide:
    """A slide and the file of what was drawn on it."""

    slide: SlideFile
    annotations: Path


@dataclass(frozen=True)
class Pairs:
    """What belongs together, and what is left alone.

    Attributes:
        slides: In the order of the slides.
        bare: Names of slides without annotations.
        lost: Annotation files without a slide.
    """

    slides: tuple[AnnotatedSlide, ...]
    bare: tuple[str, ...]
    lost: tuple[Path, ...]


def pair_slides(slides: SlideList, source: Path, annotations: str | None) -> Pairs:
    """Return the slides with their annotations.

    Args:
        slides: That were found in `source`.
        source: The file, folder or table that names the slides. A table may have a column ``annotations``, with paths from its
            own folder on.
        annotations: A file, for one slide, or a folder in which (and below which) files are called as the slides: ``a.geojson``
            or ``a.svs.geojson`` for ``a.svs``. None: the column of the table, or the folder of the slides.

    Raises:
        SourceNotFoundError: There is nothing under that name.
        RequestError: No slide has annotations, or one has two files.
    """
    if annotations is None and source.is_file() and (by_row := _of_table(source)) is not None:
        files = {each.name: file for each, file in zip(slides.slides, by_row, strict=True) if file is not None}
        lost: list[Path] = []
    else:
        files, lost = _by_name(slides, source, annotations)
    pairs = tuple(AnnotatedSlide(each, file) for each in slides.slides if (file := files.get(each.name)))
    if not pairs:
        beside = f"; {shorten(lost[0].name)} is called as none of them" if lost else ""
        raise RequestError(
            f"annotations={annotations or source}: there are none for the {len(slides.slides)} slide(s), such as "
            f"{slides.slides[0].name}.geojson{beside}"
        )
    return Pairs(pairs, tuple(each.name for each in slides.slides if each.name not in files), tuple(lost))


def _of_table(source: Path) -> list[Path | None] | None:
    """Return the file that each row names, or None if the file is no table with such a column."""
    if source.suffix.lower() not in {".csv", ".xlsx"}:
        return None
    rows = read_rows(source, "slides")
    if _COLUMN not in rows:
        raise OptionError(
            f"annotations is missing: give a file or folder of GeoJSON, or a column {_COLUMN} in {source}; its columns are "
            f"{' '.join(rows)}"
        )
    files = [source.parent / Path(text).expanduser() if text else None for text in rows[_COLUMN]]
    missing = [text for text, file in zip(rows[_COLUMN], files, strict=True) if file is not None and not file.is_file()]
    if missing:
        raise SourceNotFoundError(
            f"slides={source}, column {_COLUMN}: {shorten(missing[0])} does not exist; paths begin at the table"
        )
    return files


def _by_name(slides: SlideList, source: Path, annotations: str | None) -> tuple[dict[str, Path], list[Path]]:
    place = Path(annotations).expanduser() if annotations else source if source.is_dir() else source.parent
    if not place.exists():
        raise SourceNotFoundError(f"annotations={annotations}: no such file or folder (looked in {Path.cwd()})")
    if place.is_file():
        if len(slides.slides) > 1:
            raise OptionError(
                f"annotations={annotations}: is one file, and there are {len(slides.slides)} slides; give a folder with a file "
                "for each, called as the slide"
            )
        return {slides.slides[0].name: place}, []
    by_stem = {stem.casefold(): each.name for each in slides.slides for stem in (each.name, each.path.name)}
    files: dict[str, Path] = {}
    lost = []
    for file in (each for folder in walk_folders(place) for each in list_files(folder)):
        if (stem := _stem(file)) is None:
            continue
        name = by_stem.get(stem.casefold())
        if name is None:
            lost.append(file)
        elif name in files:
            raise RequestError(f"annotations: {files[name]} and {file} are both of {name}; keep one of them")
        else:
            files[name] = file
    return files, lost


def _stem(file: Path) -> str | None:
    """Return the name without the endings of a GeoJSON, or None where it has none."""
    return next((file.name[: -len(ending)] for ending in _ENDINGS if file.name.lower().endswith(ending)), None)
