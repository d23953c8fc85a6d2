"""What can be asked of a search; the options of training come from `histo_mlflow.options`."""

from dataclasses import dataclass, field

from histo_mlflow.errors import OptionError

TPE, RANDOM = "tpe", "random"
MEDIAN, HYPERBAND, NONE = "median", "hyperband", "none"


@dataclass(frozen=True)
class SearchOptions:
    """How many trials, of which length, where they are kept and by whom they are run."""

    trials: int = field(
        default=8, metadata={"help": "Number of finished trials that the study is to have, over all workers and calls."}
    )
    epochs: int = field(default=12, metadata={"help": "Epochs of a trial."})
    folds: int = field(
        default=0, metadata={"help": "Folds over which a trial's loss is averaged; 0: one hold-out part, as `train`."}
    )
    storage: str = field(
        default="sqlite:///optuna.db",
        metadata={"help": "Optuna storage URL; workers on many machines share postgresql+psycopg://USER@HOST/DATABASE."},
    )
    study: str = field(default="histo-b3", metadata={"help": "Name of the study; an existing one goes on."})
    jobs: int = field(default=1, metadata={"help": "Workers to start here; they share the cores."})
    sampler: str = field(
        default=TPE,
        metadata={"help": "`tpe` learns from the trials before; `random` draws at random.", "choices": (TPE, RANDOM)},
    )
    pruner: str = field(
        default=MEDIAN,
        metadata={
            "help": "Stops poor trials early: `median` those behind the median of the others at the same epoch, `hyperband` by "
            "halving, `none` never.",
            "choices": (MEDIAN, HYPERBAND, NONE),
        },
    )
    repeats: int = field(
        default=3,
        metadata={
            "help": "Seeds with which the best and the default setting are repeated at the end, to tell gain from noise."
        },
    )
    train_best: bool = field(
        default=False, metadata={"help": "Train with the best values at the end, and register the model through the gate."}
    )
    heartbeat: int = field(
        default=15,
        metadata={"help": "Seconds between signs of life; the trial of a worker silent for four of them is tried again."},
    )

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("epochs", 1), ("jobs", 1), ("repeats", 0), ("heartbeat", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"{name}={getattr(self, name)}: at least {least} is needed")
        if self.folds < 0 or self.folds == 1:
            raise OptionError(f"folds={self.folds}: give 0 for one hold-out part, or at least 2")
        if self.repeats == 1:
            raise OptionError("repeats=1: one repeat has no spread; give 0 or at least 2")
