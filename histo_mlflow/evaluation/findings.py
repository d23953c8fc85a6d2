"""What was found out on one scored split: all that its report is drawn from; knows nothing of files and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.calibration import scale
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.evaluation.details import Details, Provenance
from histo_mlflow.evaluation.intervals import Figure, Floats
from histo_mlflow.evaluation.metrics import TARGET_ACCURACY, Evaluation, Figures, Predictions, evaluate_predictions

CALIBRATION_FIGURES = ("log_loss", "brier_score", "ece_top_label", "ece_classwise")
BASELINE_FIGURES = ("balanced_accuracy", "accuracy", "log_loss")
_BASELINE_RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found out on one scored split.

    Attributes:
        evaluation: Figures of merit with their intervals, and the predictions behind them.
        indices: ``(n_tiles,)`` positions of the tiles in their set, in the order of the predictions.
        about: What was scored by what.
        details: What else is shown.
    """

    evaluation: Evaluation
    indices: NDArray[np.int64]
    about: Provenance
    details: Details

    @property
    def predictions(self) -> Predictions:
        """Labels and probabilities of the tiles."""
        return self.evaluation.predictions

    @property
    def costs(self) -> Floats:
        """``(n_classes, n_classes)``, what each confusion costs."""
        return default_costs(self.predictions.classes) if self.details.costs is None else self.details.costs

    @cached_property
    def rescaled(self) -> Predictions | None:
        """The same predictions without the temperature if the model applies it, with it if not; None if there is none."""
        temperature, predictions = self.details.temperature, self.predictions
        if temperature is None:
            return None
        factor = 1 / temperature if self.details.is_calibrated else temperature
        return Predictions(predictions.labels, scale(predictions.probabilities, factor), predictions.classes)

    @cached_property
    def calibration(self) -> dict[str, dict[str, float]]:
        """Figures of the probabilities ``before`` and ``after`` temperature scaling, by name; empty if there is none."""
        if self.rescaled is None:
            return {}
        own = {name: self.evaluation.overall[name].value for name in CALIBRATION_FIGURES}
        found = Figures(self.rescaled, self.costs)(np.ones((1, len(self.indices)), np.float32))
        other = {name: float(found[name][0]) for name in CALIBRATION_FIGURES}
        return {"before": other, "after": own} if self.details.is_calibrated else {"before": own, "after": other}

    @property
    def abstention(self) -> dict[str, float | None]:
        """What becomes of the tiles if the model abstains below its threshold."""
        threshold, predictions = self.details.threshold, self.predictions
        found: dict[str, float | None] = {"threshold": threshold, "target_accuracy": TARGET_ACCURACY}
        if threshold is None:
            return found
        is_kept = predictions.confidence >= threshold
        n, right = int(is_kept.sum()), int((is_kept & ~predictions.is_wrong).sum())
        return found | {"coverage": n / len(is_kept), "accuracy_of_kept": right / n if n else None}


def baseline_figures(said: Mapping[str, Predictions], costs: Floats | None = None) -> dict[str, dict[str, Figure]]:
    """Return the figures of classifiers that are compared with the model, from what they say, by name."""
    evaluated = {
        name: evaluate_predictions(predictions, costs=costs, n_resamples=_BASELINE_RESAMPLES)
        for name, predictions in said.items()
    }
    return {name: {figure: each.overall[figure] for figure in BASELINE_FIGURES} for name, each in evaluated.items()}
