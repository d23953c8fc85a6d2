"""Whether a candidate may replace the model in use: a decision from one comparison on one labelled set."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from histo_mlflow.evaluation.confusion import epoch_figures
from histo_mlflow.evaluation.metrics import Evaluation
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate (B) passes, and why, in sentences with figures."""

    is_passed: bool
    reasons: tuple[str, ...]

    def describe(self) -> str:
        """Return the reasons as one text."""
        return "; ".join(self.reasons)


def judge(comparison: Comparison, options: GateOptions) -> Verdict:
    """Return whether B, the candidate, is not inferior to A, the incumbent.

    Three conditions must hold, the first two with their 95 % intervals (non-inferiority, Piaggio et al. 2012): the difference
    in balanced accuracy lies above ``-margin``, that in log loss below ``loss_margin``, and no class loses more than
    ``class_margin`` of sensitivity. Few tiles give wide intervals and pass only a candidate that is much better.
    """
    balanced, loss = comparison.differences["balanced_accuracy"], comparison.differences["log_loss"]
    found = [
        (
            balanced.low >= -options.margin,
            f"balanced accuracy {balanced.value:+.4f} ({balanced.low:+.4f} to {balanced.high:+.4f}), "
            f"must stay above -{options.margin:g}",
        ),
        (
            loss.high <= options.loss_margin,
            f"log loss {loss.value:+.4f} ({loss.low:+.4f} to {loss.high:+.4f}), must stay below +{options.loss_margin:g}",
        ),
    ]
    losses = {
        name: figure.value
        for name, figure in zip(comparison.a.classes, comparison.sensitivity, strict=True)
        if figure.is_defined
    }
    if losses:
        worst = min(losses, key=lambda name: losses[name])
        words = f"sensitivity of {worst} {losses[worst]:+.4f}, no class may lose more than {options.class_margin:g}"
        found.append((losses[worst] >= -options.class_margin - 1e-9, words))
    return Verdict(
        all(is_met for is_met, _ in found), tuple(f"{'ok' if is_met else 'NOT MET'}: {words}" for is_met, words in found)
    )


def object_to(evaluation: Evaluation, baselines: Mapping[str, Predictions]) -> str:
    """Return why a model may not be the first in Production, or an empty text.

    It must call the validation tiles better than chance, beyond the noise that its 95 % interval tells of, and no worse than
    classifiers that see colour alone, whose word must be there.
    """
    balanced = evaluation.overall["balanced_accuracy"]
    chance = 1 / len(np.unique(evaluation.predictions.labels))
    said = f"balanced accuracy {balanced.value:.3f} ({balanced.low:.3f} to {balanced.high:.3f}) on the validation tiles"
    if not balanced.low > chance:
        return f"{said} is not above chance ({chance:.3f})"
    if not baselines:
        return f"{said} could not be compared with what colour alone tells: the baselines could not be made"
    of_colour = {
        name: epoch_figures(each.labels, each.probabilities.argmax(axis=1), len(each.classes))["balanced_accuracy"]
        for name, each in baselines.items()
    }
    name = max(of_colour, key=lambda each: of_colour[each])
    if balanced.value < of_colour[name]:
        return f"{said} is below what colour alone tells ({name}: {of_colour[name]:.3f})"
    return ""
