"""What can be asked of an evaluation: costs, calibration, robustness, abstention."""

from dataclasses import dataclass, field

from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.costs import DEFAULT

NONE, TEMPERATURE = "none", "temperature"


@dataclass(frozen=True)
class CostOptions:
    """What errors cost."""

    costs: str = field(
        default=DEFAULT,
        metadata={
            "help": "What each confusion costs: a yaml such as {TUM: {NORM: 10, STR: 5}} (true class, called class, cost), or "
            "`default`: a missed tumour 5, one called NORM 10, a false alarm 2, anything else 1."
        },
    )


@dataclass(frozen=True)
class CalibrationOptions:
    """Whether the registered model mends its probabilities."""

    calibration: str = field(
        default=NONE,
        metadata={
            "help": "`temperature`: the registered model divides its logits by a temperature that is fitted on the validation "
            "tiles, so that its probabilities can be believed; labels stay the same. `none`: it is only reported.",
            "choices": (NONE, TEMPERATURE),
        },
    )

    @property
    def is_wanted(self) -> bool:
        """Whether the model is to be calibrated."""
        return self.calibration == TEMPERATURE


@dataclass(frozen=True)
class RobustnessOptions:
    """On how much the model is tried."""

    robustness: int = field(
        default=300,
        metadata={
            "help": "Tiles on which the model is tried under JPEG, hue, blur, brightness and symmetries; 0 for not at all."
        },
    )

    def __post_init__(self) -> None:
        if self.robustness < 0:
            raise OptionError(f"robustness={self.robustness}: must be a number of tiles, or 0 for not at all")


@dataclass(frozen=True)
class AbstentionOptions:
    """Whether the model may leave a tile to a person."""

    abstain: bool = field(
        default=False,
        metadata={"help": "Add a column `abstain`: true where the probability is below the threshold chosen on validation."},
    )
