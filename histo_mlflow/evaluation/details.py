"""What a report is about and what it can show beside labels and probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.evaluation.intervals import Figure, Floats
from histo_mlflow.evaluation.perturbed import Perturbed


@dataclass(frozen=True)
class Provenance:
    """What a reader must know to weigh the figures.

    Attributes:
        split: ``val``, ``test`` or ``oof``.
        source: Which tiles.
        fingerprint: SHA-256 of the tile set that they are part of.
        model: Which model.
        selected: "selected on X by Y at epoch Z".
        looks: How often a model was scored on this set, this time included; 0 for a set that selection itself uses.
        is_synthetic: Whether the tiles are the demo's.
        tile_size_px: Edge length of its tiles as they were opened; 0 where that is not known.
    """

    split: str
    source: str
    fingerprint: str
    model: str
    selected: str
    looks: int
    is_synthetic: bool
    tile_size_px: int = 0


@dataclass(frozen=True, eq=False)
class Details:
    """What a report can show beyond labels and probabilities; what is absent is said to be absent.

    Attributes:
        flow: Tiles per class ``(n_classes,)`` of each part, by name: training, validation, scored.
        split_unit: What was kept together when the parts were made, in words.
        temperature: Fitted on validation tiles, or None.
        is_calibrated: Whether the probabilities are those after division by `temperature`.
        threshold: Probability below which the model abstains, chosen on validation tiles, or None.
        costs: ``(n_classes, n_classes)``, or None for the default.
        robustness: From the robustness protocol, first without a change.
        baselines: Figures by name of classifiers that see only colour, on the same tiles, by name of classifier.
        folds: One row of figures for each fold.
    """

    flow: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    split_unit: str = "not known"
    temperature: float | None = None
    is_calibrated: bool = False
    threshold: float | None = None
    costs: Floats | None = None
    robustness: Sequence[Perturbed] = ()
    baselines: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)
    folds: pd.DataFrame | None = None
