"""What can be asked of tracking: what is kept, under which name a model is registered, where runs are mirrored to."""

import re
from dataclasses import dataclass

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import OptionError
from histo_mlflow.options import OWN_RUN, Options, option, stated

PRODUCTION = "models:/histo-b3/Production"

_MODEL_NAME = re.compile(r"[\w.-]+")
_MAX_NAME = 250
_MAX_REASON = 1000  # a decision with its figures has 5000 characters in MLflow's database; SQLite lets more pass


@dataclass(frozen=True)
class KeepingOptions(Options):
    """Checkpoints and resuming."""

    comes_last = True

    keep_checkpoints: str = option(
        "all",
        "Weights of which epochs stay with the run: all, best (43 MB), or a number: the last so many beside the best. The "
        "state to resume from always stays (170 MB).",
        changes_result=False,
    )
    resume: str = option(
        "none",
        "An interrupted run to go on with: its options and tiles, the same result. The first characters of its id name it, or "
        "`last`.",
        changes_result=False,
        names=OWN_RUN,
    )
    take_over: bool = option(
        False,
        "Resume a run of another machine although it gave a sign of life in the last 5 minutes; only if it has surely ended, "
        "else two processes write to one run.",
        changes_result=False,
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` for what is neither a word nor a number too."""
        super().__post_init__()
        is_number = self.keep_checkpoints.isdigit() and int(self.keep_checkpoints) > 0
        if self.keep_checkpoints not in {"all", "best"} and not is_number:
            raise OptionError(f"keep_checkpoints={self.keep_checkpoints}: must be all, best or a number of epochs")

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier run is to go on."""
        return stated(self.resume) is not None


@dataclass(frozen=True)
class NameOptions(Options):
    """Registered model."""

    model_name: str = option("histo-b3", "Name of the registered model.", changes_result=False)

    def __post_init__(self) -> None:
        """Raise `OptionError` for a name that would be no part of a models:/ address too."""
        super().__post_init__()
        if not _MODEL_NAME.fullmatch(self.model_name):
            raise OptionError(
                f"model_name={self.model_name!r}: use letters, digits, '.', '-' and '_', as in models:/histo-b3/1"
            )


@dataclass(frozen=True)
class RegistryOptions(NameOptions):
    """Registration."""

    register: bool = option(
        True, "Whether the best model is registered; it is logged with its run either way.", changes_result=False
    )


@dataclass(frozen=True)
class ReasonOptions(Options):
    """Reason."""

    reason: str = option("none", "Why, for those who read the history.")

    def __post_init__(self) -> None:
        """Raise `OptionError` for a reason that no history can keep too."""
        super().__post_init__()
        if len(self.reason) > _MAX_REASON:
            raise OptionError(f"reason has {len(self.reason)} characters; give at most {_MAX_REASON}, and a link for the rest")

    @property
    def stated(self) -> str:
        """The reason, or nothing."""
        return hide_secrets((stated(self.reason) or "").strip())


@dataclass(frozen=True)
class RunOptions(Options):
    """Run: what it is called, where it is listed."""

    comes_last = True

    run_name: str = option(
        "none",
        "Name of the run in MLflow; `none` makes one of data, backbone, what differs from the defaults, and the figure.",
        changes_result=False,
    )
    experiment: str = option(
        "none",
        "MLflow experiment that the run goes to, made if there is none; `none`: MLFLOW_EXPERIMENT_NAME, or Default.",
        changes_result=False,
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` for a name that MLflow's database has no room for too."""
        super().__post_init__()
        for name, value in (("run_name", self.run_name), ("experiment", self.experiment)):
            if len(value) > _MAX_NAME or not value.isprintable():
                raise OptionError(f"{name}={shorten(value)}: give at most {_MAX_NAME} characters, on one line")


@dataclass(frozen=True)
class MirrorOptions(Options):
    """Mirror."""

    comes_last = True

    wandb: bool = option(
        False,
        "Mirror the run to Weights & Biases while it goes on; without a key or network it is recorded here, to be sent "
        "later. Needs the extra `wandb`.",
        changes_result=False,
    )
