"""Options that several jobs share; imports neither torch nor MLflow."""

from dataclasses import dataclass

from histo_mlflow.evaluation.options import CalibrationOptions, CostOptions, GateOptions
from histo_mlflow.learning.options import ComputeOptions, Recipe
from histo_mlflow.options import MODEL, JobOptions, Options, option
from histo_mlflow.tiles.options import DataOptions, given_tiles
from histo_mlflow.tracking.options import PRODUCTION, KeepingOptions, MirrorOptions, RegistryOptions, RunOptions


@dataclass(frozen=True)
class LearningOptions(JobOptions):
    """What every job is asked that trains a model.

    Attributes:
        split: How tiles are divided into training and validation tiles; each job says it in its own way.
    """

    data: DataOptions
    split: Options
    recipe: Recipe
    calibration: CalibrationOptions
    costs: CostOptions
    registry: RegistryOptions
    gate: GateOptions
    keeping: KeepingOptions
    naming: RunOptions
    mirror: MirrorOptions


@dataclass(frozen=True, kw_only=True)
class JudgingOptions(JobOptions):
    """What every job is asked that runs registered or logged models on labelled tiles, and keeps what it finds."""

    compute: ComputeOptions
    naming: RunOptions
    mirror: MirrorOptions


@dataclass(frozen=True)
class ScoringOptions(Options):
    """Model and tiles."""

    model: str = option(
        PRODUCTION,
        "A registered model (models:/histo-b3/Production), a run id, a checkpoint of any epoch "
        "(runs:/RUN_ID/checkpoints/epoch_007.safetensors) or a path.",
        names=MODEL,
    )
    data: str = given_tiles("Tiles to apply it to, as in `train --data`; must be given.")
