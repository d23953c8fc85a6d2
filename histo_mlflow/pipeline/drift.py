"""Tiles that come compared with what their model was tried on: batch by batch as they pass, one sentence at the end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.console import say, warn
from histo_mlflow.evaluation.drift import Drift, compare, find_objection
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer
from histo_mlflow.models.model import Model
from histo_mlflow.models.training_summary import SCORES, Seen, Tally
from histo_mlflow.tracking.runs import Run


@dataclass(frozen=True)
class Compared:
    """What came of a comparison.

    Attributes:
        drift: How the tiles compare, or None.
        objection: Why they could not be compared, or None.
    """

    drift: Drift | None
    objection: str | None = None

    def tell(self, what: str = "") -> None:
        """Say what was found of tiles, `what` naming them; an alarm is a warning."""
        head = f"{what}: " if what else ""
        if self.drift is None:
            say(f"{head}drift: not judged: {self.objection}")
        elif self.drift.is_alarm:
            warn(f"{head}{self.drift.describe()}")
        else:
            say(f"{head}{self.drift.describe()}")

    def keep(self, run: Run | None) -> None:
        """Keep the figures as metrics of a run, if there is one."""
        if run is not None and self.metrics:
            run.log_metrics(self.metrics)

    @property
    def metrics(self) -> Mapping[str, float]:
        """The figures by the names that runs have them under; none where nothing was compared."""
        return {} if self.drift is None else self.drift.metrics()


class Watch:
    """Infers with a model, and keeps of the tiles that pass what they are compared by: a few sums, however many they are.

    One watch is for tiles that are judged together: a slide, or all that one command predicts.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._tally: Tally | None = None

    def infer(self, tiles: NDArray[Any], *, compute: Compute, description: str | None = "infer") -> NDArray[np.float32]:
        """Return logits ``(n_tiles, n_classes)`` as `infer` does with ``model.folded``, in one pass with the features."""
        model = self._model
        if model.summary is None or not len(tiles):
            return infer(model.folded, tiles, compute=compute, description=description)
        seen = see(model, tiles, compute, description=description)
        self.note(seen)
        return seen.logits

    def note(self, seen: Seen) -> None:
        """Add tiles to those that are judged."""
        assert self._model.summary is not None
        scores = self._model.summary.space.scores_of(seen)
        tally = Tally.of(scores, seen.called, len(self._model.classes))
        self._tally = tally if self._tally is None else self._tally + tally

    def compared(self) -> Compared:
        """Return how all tiles that have passed compare with what the model was tried on."""
        summary = self._model.summary
        if summary is None:
            return Compared(None, f"{self._model.address} keeps no summary of its training")
        tally = self._tally or Tally(np.zeros(summary.n_classes), np.zeros((len(SCORES), summary.n_classes)))
        objection = find_objection(summary, int(tally.counts.sum()))
        return Compared(None, objection) if objection else Compared(compare(summary, tally))


def see(model: Model, tiles: NDArray[Any], compute: Compute, *, description: str | None = "infer") -> Seen:
    """Return what a model makes of tiles: logits, and the features where they can be had, in one pass."""
    if model.revealed is None:
        return Seen(infer(model.folded, tiles, compute=compute, description=description))
    n_classes = len(model.classes)
    both = infer(model.revealed, tiles, compute=compute, description=description)
    return Seen(both[:, :n_classes], both[:, n_classes:])


def compare_with_training(model: Model, logits: NDArray[np.float32], features: NDArray[np.float32] | None = None) -> Compared:
    """Return how tiles compare with what `model` was tried on, by what it made of them.

    Args:
        model: Whose summary counts.
        logits: ``(n_tiles, n_classes)``, divided by the model's temperature as it gives them.
        features: ``(n_tiles, n_features)``, what its head saw; without them the model's confidence alone is compared.
    """
    watch = Watch(model)
    if model.summary is not None:
        watch.note(Seen(logits, features))
    return watch.compared()
