"""What was found out on scored tiles: all that a report is drawn from; knows nothing of files and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.evaluation.calibration import Calibration, scale
from histo_mlflow.evaluation.caveats import Caveat
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.evaluation.drawn import TARGET_ACCURACY
from histo_mlflow.evaluation.intervals import Estimate, Floats, Units
from histo_mlflow.evaluation.metrics import Evaluation, evaluate_predictions, statistics_of
from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.tiles.tile_set import Part

CALIBRATION_METRICS = ("log_loss", "brier_score", "ece_top_label", "ece_classwise")
UNKNOWN_LOOKS = -1
"""How often models were scored on a set of which nobody has kept count."""
BASELINE_METRICS = ("balanced_accuracy", "accuracy", "log_loss")


@dataclass(frozen=True, kw_only=True)
class About:
    """What a reader must know to weigh the numbers of a page.

    Attributes:
        split: ``val``, ``test`` or ``oof``.
        source: Which tiles.
        fingerprint: SHA-256 of the tile set that they are part of.
        is_synthetic: Whether the tiles are the demo's.
        tile_size_px: Edge length of its tiles as they were opened; 0 where that is not known.
        models: Which model, or which two are compared.
        selected: "selected on X by Y at epoch Z", of a model that is reported alone.
        looks: How often a model was scored on this set, this time included; 0 for a set that selection itself uses,
            `UNKNOWN_LOOKS` where nobody has counted.
        date: When it was scored, in UTC, or "".
    """

    split: str = "test"
    source: str
    fingerprint: str
    is_synthetic: bool
    tile_size_px: int = 0
    models: tuple[str, ...]
    selected: str = ""
    looks: int
    date: str = ""

    @classmethod
    def of(cls, part: Part, *models: str, looks: int, selected: str = "") -> "About":
        """Return what is to be known of a scoring of `part` by `models`."""
        tiles = part.tiles
        return cls(
            split=part.name,
            source=tiles.describe(),
            fingerprint=tiles.fingerprint,
            is_synthetic=tiles.is_synthetic,
            tile_size_px=tiles.tile_size_px,
            models=models,
            selected=selected,
            looks=looks,
            date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        )

    @property
    def is_selected_on(self) -> bool:
        """Whether these tiles have selected the model, so that its figures are optimistic."""
        return self.looks == 0


@dataclass(frozen=True, eq=False)
class Details:
    """What a report can show beyond labels and probabilities; what is absent is said to be absent.

    Attributes:
        flow: Tiles per class ``(n_classes,)`` of each part, by name: training, validation, scored.
        split_unit: What was kept together when the parts were made, in words.
        calibration: What validation tiles say of the model's probabilities; those shown are as the model says them.
        costs: ``(n_classes, n_classes)``, or None for the default.
        robustness: From the robustness protocol, first without a change.
        baselines: Figures by name of classifiers that see only colour, on the same tiles, by name of classifier.
        folds: One row of figures for each fold.
        caveats: What was known to limit the figures when the tiles were scored; those that figures tell are not among them.
    """

    flow: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    split_unit: str = "not known"
    calibration: Calibration = field(default_factory=Calibration)
    costs: Floats | None = None
    robustness: Sequence[Perturbed] = ()
    baselines: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    folds: pd.DataFrame | None = None
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found out on one scored split.

    Attributes:
        evaluation: Figures of merit with their intervals, and the predictions behind them.
        indices: ``(n_tiles,)`` positions of the tiles in their set, in the order of the predictions.
        about: What was scored by what.
        details: What else is shown.
        given_names: ``(n_tiles,)`` paths of the tiles below their source; None where they are not files or that is not known.
    """

    evaluation: Evaluation
    indices: NDArray[np.int64]
    about: About
    details: Details
    given_names: NDArray[np.str_] | None = None

    @property
    def names(self) -> NDArray[np.str_]:
        """``(n_tiles,)``, by what each tile is found again: its path below the source, or its position there as text."""
        return self.indices.astype(np.str_) if self.given_names is None else self.given_names

    @property
    def predictions(self) -> Predictions:
        """Labels and probabilities of the tiles."""
        return self.evaluation.predictions

    @property
    def costs(self) -> Floats:
        """``(n_classes, n_classes)``, what each confusion costs."""
        return default_costs(self.predictions.classes) if self.details.costs is None else self.details.costs

    @property
    def compared(self) -> dict[str, Mapping[str, Estimate]]:
        """Figures by name of the model and of the classifiers that see only colour, by name, the model first."""
        own = {name: self.evaluation.overall[name] for name in BASELINE_METRICS}
        return {"the model": own, **self.details.baselines}

    @cached_property
    def rescaled(self) -> Predictions | None:
        """The same predictions without the temperature if the model applies it, with it if not; None if there is none."""
        calibration, predictions = self.details.calibration, self.predictions
        if calibration.temperature is None:
            return None
        factor = 1 / calibration.temperature if calibration.is_applied else calibration.temperature
        return Predictions(predictions.labels, scale(predictions.probabilities, factor), predictions.classes)

    @cached_property
    def before_and_after(self) -> dict[str, dict[str, float]]:
        """Metrics of the probabilities ``before`` and ``after`` temperature scaling, by name; empty if there is none."""
        if self.rescaled is None:
            return {}
        own = {name: self.evaluation.overall[name].value for name in CALIBRATION_METRICS}
        found = Units(len(self.rescaled.labels)).value(statistics_of(self.rescaled, self.costs, CALIBRATION_METRICS))
        other = {name: float(value) for name, value in found.items()}
        return {"before": other, "after": own} if self.details.calibration.is_applied else {"before": own, "after": other}

    @property
    def abstention(self) -> dict[str, float | None]:
        """What becomes of the tiles if the model abstains below its threshold."""
        threshold, predictions = self.details.calibration.abstain_below, self.predictions
        found: dict[str, float | None] = {"threshold": threshold, "target_accuracy": TARGET_ACCURACY}
        if threshold is None:
            return found
        is_kept = predictions.confidence >= threshold
        n, right = int(is_kept.sum()), int((is_kept & ~predictions.is_wrong).sum())
        return found | {"coverage": n / len(is_kept), "accuracy_of_kept": right / n if n else None}


def evaluate_baselines(said: Mapping[str, Predictions], costs: Floats | None = None) -> dict[str, dict[str, Estimate]]:
    """Return the metrics of classifiers that are compared with the model, by name, from their predictions."""
    evaluated = {name: evaluate_predictions(predictions, costs=costs) for name, predictions in said.items()}
    return {name: {metric: each.overall[metric] for metric in BASELINE_METRICS} for name, each in evaluated.items()}
