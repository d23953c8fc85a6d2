"""What can be asked of an evaluation: costs, calibration, robustness, abstention, the gate's margins."""

from dataclasses import dataclass

from histo_mlflow.options import Options, option

DEFAULT_COSTS = "default"
NONE, TEMPERATURE = "none", "temperature"


@dataclass(frozen=True)
class CostOptions(Options):
    """Costs of errors."""

    costs: str = option(
        DEFAULT_COSTS,
        "What each confusion costs: a yaml such as {TUM: {NORM: 10, STR: 5}} (true class, called class, cost), or `default`: "
        "a missed tumour 5, one called NORM 10, a false alarm 2, anything else 1.",
        changes_result=False,
    )


@dataclass(frozen=True)
class CalibrationOptions(Options):
    """Calibration."""

    calibration: str = option(
        NONE,
        "`temperature`: the registered model divides its logits by a temperature that is fitted on the validation tiles, so "
        "that its probabilities can be believed; labels stay the same. `none`: it is only reported.",
        choices=(NONE, TEMPERATURE),
        changes_result=False,
    )

    @property
    def is_wanted(self) -> bool:
        """Whether the model is to be calibrated."""
        return self.calibration == TEMPERATURE


@dataclass(frozen=True)
class RobustnessOptions(Options):
    """Robustness."""

    robustness: int = option(
        300,
        "Tiles on which the model is tried under JPEG, hue, blur, brightness and symmetries; 0 for not at all.",
        at_least=0,
    )


@dataclass(frozen=True)
class AbstentionOptions(Options):
    """Abstention."""

    abstain: bool = option(
        False, "Add a column `abstain`: true where the probability is below the threshold chosen on validation."
    )


@dataclass(frozen=True)
class GateOptions(Options):
    """Gate to Production: how much worse a candidate may be."""

    margin: float = option(
        0.01,
        "Non-inferiority margin: the interval of the difference in balanced accuracy must lie above minus this.",
        at_least=0,
        changes_result=False,
    )
    loss_margin: float = option(
        0.05,
        "The interval of the difference in log loss (nats) must not reach above this.",
        at_least=0,
        changes_result=False,
    )
    class_margin: float = option(
        0.05,
        "No class may lose more than this share of sensitivity (0.05 = five points).",
        at_least=0,
        changes_result=False,
    )


@dataclass(frozen=True)
class Int8Options(GateOptions):
    """Gate to int8: how much worse than the model itself may be what has 8 bits."""
