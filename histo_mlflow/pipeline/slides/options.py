"""What can be asked of slides that a model is to be shown; imports neither torch nor MLflow."""

import re
from dataclasses import dataclass

from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.options import AbstentionOptions, Int8Options
from histo_mlflow.models.options import RuntimeOptions
from histo_mlflow.options import Options, option, stated
from histo_mlflow.pipeline.options import JudgingOptions
from histo_mlflow.slides.options import GridOptions, TissueOptions
from histo_mlflow.slides.viewer_options import ViewerOptions
from histo_mlflow.tracking.options import PRODUCTION


@dataclass(frozen=True)
class SlideOptions(Options):
    """Model and slides."""

    model: str = option(PRODUCTION, "A registered model (models:/histo-b3/Production), a run id or a path, as in `predict`.")
    slides: str = option(
        "",
        "A slide, a folder of slides, or a table (csv, xlsx) with a column `slide` and, if you like, `mpp` and `patient`; must "
        "be given.",
        missing="slides is missing: name a slide, a folder of slides or a table of them with --slides",
    )
    tissue: str = option(
        "none",
        "Where to look, instead of the tissue that is found: a mask (png, white is tissue), regions from QuPath (geojson), or "
        "a folder with one of them for each slide, by its name.",
    )
    mpp: float = option(
        0.0,
        "Width of a pixel of the slides in micrometres, for those whose file doesn't say it (0.25 is 40x, 0.5 is 20x); a "
        "column `mpp` of the table goes before the file. 0: not given.",
        at_least=0,
    )
    model_mpp: float = option(
        0.0, "Width of a pixel of the model's tiles in micrometres, if the model doesn't say it. 0: not given.", at_least=0
    )
    views: int = option(
        1,
        "Symmetries of each tile that are looked at: 1 as it is, 4 turned, 8 turned and mirrored too, in as many times the "
        "time. The mean of their probabilities is written, and how much they differ.",
        at_least=1,
        at_most=8,
    )


@dataclass(frozen=True)
class BatchOptions(Options):
    """Many slides."""

    output: str = option(
        "scored",
        "Folder to write to. Slides that are done there already, with this model and these options, are not done again.",
    )
    shard: str = option(
        "none",
        "i/n: do the i-th of n parts of the slides (1/4 to 4/4), each in its own process or on its own machine; they may write "
        "to one folder. `none`: all that nobody else is at.",
        changes_result=False,
    )
    spark: str = option(
        "none",
        "Spark master whose workers share the slides: local[2], spark://HOST:7077, yarn; all must see slides and output.",
        changes_result=False,
    )
    keep: str = option(
        "small",
        "What the run in MLflow keeps of each slide: all files, small (not the zarr and the OME-TIFF), or summary (one table).",
        choices=("all", "small", "summary"),
        changes_result=False,
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` for a shard that there can't be too."""
        super().__post_init__()
        _ = self.part

    @property
    def spark_master(self) -> str | None:
        """Whose workers share the slides, or None."""
        return stated(self.spark)

    @property
    def part(self) -> tuple[int, int]:
        """Which part of how many, counted from 1."""
        if (text := stated(self.shard)) is None:
            return 1, 1
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise OptionError(f"shard={text}: must be i/n with i from 1 to n, for instance 2/4")
        return int(match[1]), int(match[2])


@dataclass(frozen=True, kw_only=True)
class ScoringSlidesOptions(JudgingOptions):
    """All that is asked where slides are scored."""

    asked: SlideOptions
    grid: GridOptions
    finding: TissueOptions
    viewer: ViewerOptions
    batch: BatchOptions
    abstention: AbstentionOptions
    runtime: RuntimeOptions
    gate: Int8Options
