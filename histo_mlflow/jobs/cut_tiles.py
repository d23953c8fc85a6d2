"""Cut tiles from slides by what was drawn on them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.errors import RequestError, UnreadableSlideError, WorkError
from histo_mlflow.jobs import job
from histo_mlflow.learning.options import SeedOptions
from histo_mlflow.options import JobOptions, option, stated
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.slides.options import CutOptions, GridOptions, TissueOptions
from histo_mlflow.tiles.options import STORED


@dataclass(frozen=True, kw_only=True)
class Tiles(JobOptions):
    """Cut tiles from slides by what was drawn on them.

    Regions with classes come from QuPath (GeoJSON). Tiles of one scale, their classes, slides and patients go to an npz that
    `train` and `cv` take; a picture shows what was cut where.
    """

    slides: str = option(
        "",
        "A slide, a folder of slides, or a table (csv, xlsx) with a column slide and, as you like, annotations, patient, mpp.",
        missing="slides is missing: name the slides with --slides, a file, a folder or a table",
    )
    annotations: str = option(
        "none",
        "A GeoJSON, or a folder with one for each slide, called as the slide (a.geojson for a.svs); `none`: as the table of "
        "slides says, or beside the slides.",
    )
    output: str = option("set.npz", "File to write; the picture and the record are called as it, with .png and .json.")
    tile_size: int = option(224, "Edge length of a tile in pixels.", at_least=8, at_most=4096)
    microns_per_pixel: float = option(0.5, "Width of a pixel of a tile in micrometres (0.5 is 20x).", above=0)
    mpp: float = option(
        0.0,
        "Width of a pixel of the slides' finest level in micrometres, before what their files say; 0: as they say.",
        at_least=0,
    )
    groups: str = option(
        STORED,
        "Whose slides they are: `stored` (the column patient of the table of slides, if there is one), a pattern over their "
        "names (re:(?P<patient>p\\d+)), `tcga`, or a table (PATIENT,FILENAME).",
    )
    classes: str = option(
        "none", "A yaml that renames (old: new), merges (new: [a, b]) or leaves out (old: null) classes of annotations."
    )
    rules: CutOptions
    grid: GridOptions
    tissue: TissueOptions
    seed: SeedOptions


@dataclass(frozen=True)
class TilesResult(Shown):
    """What was cut.

    Attributes:
        path: The set.
        n_tiles: By class.
        picture: What was cut where.
    """

    path: Path
    n_tiles: dict[str, int]
    picture: Path


@job("Learn", 0, example="histo tiles --slides slides --annotations drawn --output set.npz", name="tiles")
def cut_tiles(options: Tiles) -> TilesResult:
    """Write an npz and return what is in it; it appears when it is complete.

    Slides that were finished before are not read again when the work was broken off, or is asked for again after some failed.

    Raises:
        UnreadableSlideError: Some slides could not be cut; tiles of all others are in the set.
    """
    from filelock import FileLock, Timeout

    from histo_mlflow.console import say
    from histo_mlflow.pipeline.slides.cut import CutPlan, check_output, count_tiles, cut_slides, open_marked
    from histo_mlflow.pipeline.slides.cut_report import describe_cut, write_set
    from histo_mlflow.tracking.runs import begun_run
    from histo_mlflow.tracking.store import read_store

    output = check_output(options.output)
    plan = CutPlan(
        options.tile_size, options.microns_per_pixel, options.mpp or None, options.tissue, options.grid, options.rules,
        options.seed.seed,
    )  # fmt: skip
    marked = open_marked(options.slides, stated(options.annotations), options.groups, stated(options.classes), options.rules)
    n_regions = sum(len(each.regions) for each in marked.annotations.values())
    say(f"slides: {len(marked.pairs)} with annotations, {n_regions} regions with a class")
    folder = output.with_name(f"{output.name}.parts")
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            parts, faults = cut_slides(plan, marked, folder)
            if not parts:
                raise next(iter(faults.values()))
            say(f"\n{describe_cut(parts, marked)}\n")
            counts = count_tiles(parts)
            if len(counts) < 2:
                raise RequestError(f"there are tiles of {' '.join(counts) or 'no class'} alone; a classifier needs two classes")
            written = write_set(output, parts, plan, marked)
    except Timeout:
        raise WorkError(f"another process is cutting tiles for {output}; wait for it, or name another output") from None
    if run := begun_run(read_store()):
        for file in written:
            run.log_file(file)
    where = ", ".join(map(str, written))
    say(f"{output}: {sum(counts.values())} tiles of {plan.size_px} px ({where})\nnext: histo cv --data {output}")
    if faults:
        told = "; ".join(f"{name}: {error}" for name, error in faults.items())
        raise UnreadableSlideError(f"{len(faults)} of {len(marked.pairs)} slides are not in {output}: {told}")
    shutil.rmtree(folder)
    return TilesResult(output, counts, written[0])
