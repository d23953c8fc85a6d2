"""What can be asked of a search: its own options, and those of `train` that every trial shares."""

from dataclasses import dataclass

from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.options import CostOptions, GateOptions
from histo_mlflow.learning.options import FitOptions, Recipe
from histo_mlflow.options import JobOptions, Options, option
from histo_mlflow.tiles.options import DataOptions, HoldOutOptions
from histo_mlflow.tracking.options import MirrorOptions, RegistryOptions, RunOptions

TPE, RANDOM = "tpe", "random"
MEDIAN, HYPERBAND, NONE = "median", "hyperband", "none"


@dataclass(frozen=True)
class SearchOptions(Options):
    """Search: trials, where they are kept, workers."""

    trials: int = option(
        8, "Number of finished trials that the study is to have, over all workers and calls.", at_least=1, changes_result=False
    )
    folds: int = option(0, "Folds over which a trial's loss is averaged; 0: one hold-out part, as `train`.", at_least=0)
    storage: str = option(
        "sqlite:///optuna.db",
        "Optuna storage URL; workers on many machines share postgresql+psycopg://USER@HOST/DATABASE.",
        changes_result=False,
    )
    study: str = option("histo-b3", "Name of the study; an existing one goes on.", changes_result=False)
    search: str = option(
        "aug_cutoff,learning_rate",
        "Options that are searched, with commas: also weight_decay, label_smoothing, augment, stain_sigma, trainable, "
        "layer_decay.",
        changes_result=False,
    )
    backbones: str = option(
        "none",
        "Search the backbone too, among these, with commas, for instance lite0,torchvision:resnet18.",
        changes_result=False,
    )
    jobs: int = option(1, "Workers to start here; they share the cores.", at_least=1, changes_result=False)
    sampler: str = option(
        TPE,
        "`tpe` learns from the trials before; `random` draws at random.",
        choices=(TPE, RANDOM),
        changes_result=False,
    )
    pruner: str = option(
        MEDIAN,
        "Stops poor trials early: `median` those behind the median of the others at the same epoch (over folds: those behind "
        "the best on the same folds, by a signed-rank test), `hyperband` by halving, `none` never.",
        choices=(MEDIAN, HYPERBAND, NONE),
        changes_result=False,
    )
    repeats: int = option(
        3,
        "Seeds, each with a split of its own, with which the best and the default setting are repeated at the end, to tell "
        "gain from noise.",
        at_least=0,
        changes_result=False,
    )
    train_best: bool = option(
        False,
        "Train with the best values at the end, and register the model through the gate.",
        changes_result=False,
    )
    heartbeat: int = option(
        15,
        "Seconds between signs of life; the trial of a worker silent for four of them is tried again.",
        at_least=1,
        changes_result=False,
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` for numbers of which one is too few too."""
        super().__post_init__()
        if self.folds == 1:
            raise OptionError("folds=1: give 0 for one hold-out part, or at least 2")
        if self.folds and self.pruner == HYPERBAND:
            raise OptionError("pruner=hyperband halves epochs, not folds: give median or none, or leave folds out")
        if self.repeats == 1:
            raise OptionError("repeats=1: one repeat has no spread; give 0 or at least 2")


@dataclass(frozen=True)
class TrialFitOptions(FitOptions):
    """Training of a trial: how long, how carefully."""

    epochs: int = option(12, "Epochs of a trial.", at_least=1)


@dataclass(frozen=True)
class TrialRecipe(Recipe):
    """Everything that decides what a network becomes from given tiles."""

    fit: TrialFitOptions


@dataclass(frozen=True)
class Tune(JobOptions):
    """Search for the options that give the lowest validation loss: by default the augmentation cutoff and the learning rate.

    With nothing given it tries 8 settings on demo tiles. The study is kept and goes on with the same command; --trials is the
    total. More workers: --jobs here, or the same command on other machines with a --storage that they share. The ranges are in
    tuning/search_space.py; what is searched can't be given.
    """

    search: SearchOptions
    data: DataOptions
    split: HoldOutOptions
    recipe: TrialRecipe
    costs: CostOptions
    registry: RegistryOptions
    gate: GateOptions
    naming: RunOptions
    mirror: MirrorOptions
