"""Options that name a model, a version or a run, and what is done with it; `histo_mlflow.options` puts them together."""

from dataclasses import dataclass, field

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import OptionError
from histo_mlflow.tiles.open import check_given

_MAX_REASON = 1000  # a decision with its figures has 5000 characters in MLflow's database; SQLite lets more pass


@dataclass(frozen=True)
class ScoringOptions:
    """Which model is applied to which tiles."""

    model: str = field(
        default="models:/histo-b3/Production",
        metadata={
            "help": "A registered model (models:/histo-b3/Production), a run id, a checkpoint of any epoch "
            "(runs:/RUN_ID/checkpoints/epoch_007.safetensors) or a path."
        },
    )
    data: str = field(default="", metadata={"help": "Tiles to apply it to, as in `train --data`; must be given."})

    def __post_init__(self) -> None:
        check_given(self.data)


@dataclass(frozen=True)
class OutputOptions:
    """Where predictions go."""

    output: str = field(default="predictions.csv", metadata={"help": "CSV file to write."})


@dataclass(frozen=True)
class PairOptions:
    """Which two models are compared on which tiles."""

    model_a: str = field(
        default="models:/histo-b3/Production",
        metadata={"help": "The model to compare with, as `evaluate --model`.", "is_positional": True},
    )
    model_b: str = field(
        default="models:/histo-b3@candidate",
        metadata={"help": "The model that is compared with it.", "is_positional": True},
    )
    data: str = field(default="", metadata={"help": "Labelled tiles, as in `train --data`; must be given."})

    def __post_init__(self) -> None:
        check_given(self.data)


@dataclass(frozen=True)
class NameOptions:
    """Which registered model is meant."""

    model_name: str = field(default="histo-b3", metadata={"help": "Name of the registered model."})


@dataclass(frozen=True)
class ReasonOptions:
    """Why something is done."""

    reason: str = field(default="none", metadata={"help": "Why, for those who read the history."})

    def __post_init__(self) -> None:
        if len(self.reason) > _MAX_REASON:
            raise OptionError(f"reason has {len(self.reason)} characters; give at most {_MAX_REASON}, and a link for the rest")

    @property
    def stated_reason(self) -> str:
        """The reason, or nothing."""
        return "" if self.reason.strip() in {"", "none"} else hide_secrets(self.reason.strip())


@dataclass(frozen=True)
class PromotionOptions:
    """Which version is to go to Production, and on what evidence."""

    version: str = field(default="none", metadata={"help": "Number of the version; or give `run`."})
    run: str = field(default="none", metadata={"help": "Id of the run that registered the version."})
    test_data: str = field(
        default="none", metadata={"help": "Labelled tiles on which it is compared with the version in Production."}
    )
    force: bool = field(default=False, metadata={"help": "Promote it without a comparison; needs a reason."})


@dataclass(frozen=True)
class ReplayOptions:
    """Which run is sent to the mirror."""

    run: str = field(
        default="none", metadata={"help": "Id of a run that has ended, with those nested in it.", "is_positional": True}
    )


@dataclass(frozen=True)
class DeliveryOptions:
    """Which run is completed."""

    run: str = field(
        default="none",
        metadata={"help": "Id of a run that a server has not got all of, as the warning said.", "is_positional": True},
    )


@dataclass(frozen=True)
class DrawingOptions:
    """Of which run the report is made."""

    run: str = field(
        default="none",
        metadata={
            "help": "Id of a run that has ended; with a cross-validation its folds are drawn too.",
            "is_positional": True,
        },
    )
