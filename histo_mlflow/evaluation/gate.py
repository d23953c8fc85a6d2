"""Whether a candidate may replace the model in use: a decision from one comparison on one labelled set."""

from dataclasses import dataclass

import numpy as np

from histo_mlflow.evaluation.evidence import Layout, gain_in_balanced_accuracy, gain_in_log_loss, loss_of_class
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.evaluation.verdict import Sign, chance_level, low_end, verdict_of

ALPHA = 0.025
"""One-sided error of the first decision on a set: of passing a candidate that is worse by just the margin."""
CLASS_ALPHA = 0.05
"""One-sided error of refusing a candidate for a class that has lost just the margin; the same for every decision."""
METHOD = "Bayesian bootstrap with one unseen worst unit (Gaffke 2005), tiles and patients, one-sided"


def alpha_of_look(look: int) -> float:
    """Return the error that decision number `look` on one set may have; all together have at most twice `ALPHA`.

    Half of what is left is spent on each (alpha spending, Lan and DeMets 1983), whatever the decisions before have come to:
    by Bonferroni's inequality the error over all of them stays at 5 %.
    """
    return ALPHA * 0.5 ** (look - 1)


@dataclass(frozen=True)
class Ruling:
    """Whether the candidate (B) passes, and why, in sentences with figures."""

    is_passed: bool
    reasons: tuple[str, ...]

    def describe(self) -> str:
        """Return the reasons as one text."""
        return "; ".join(self.reasons)


def judge(comparison: Comparison, options: GateOptions, alpha: float = ALPHA) -> Ruling:
    """Return whether B, the candidate, is not inferior to A, the incumbent (non-inferiority, Piaggio et al. 2012).

    The lower limits of its gains, at a one-sided error of `alpha`, lie above ``-margin`` in balanced accuracy and above
    ``-loss_margin`` in log loss, and of no class is it shown that it lost more than ``class_margin`` of sensitivity. A set that
    lacks tiles of a class, or patients, can't decide and passes none.
    """
    a, b = comparison.a, comparison.b
    if lack := Layout(a.labels, a.classes, a.groups).describe_lack():
        return Ruling(False, (f"NOT MET: {lack}",))
    accuracy, loss = gain_in_balanced_accuracy(a, b), gain_in_log_loss(a, b)
    difference = comparison.differences
    sure = f"{100 * (1 - alpha):.4g} % sure"
    found = [
        (
            bool(accuracy.p_value(options.margin) <= alpha),
            f"balanced accuracy {difference['balanced_accuracy'].value:+.4f}, above {accuracy.lower(alpha):+.4f} is {sure}, "
            f"must be above -{options.margin:g}",
        ),
        (
            bool(loss.p_value(options.loss_margin) <= alpha),
            f"log loss {difference['log_loss'].value:+.4f}, below {-loss.lower(alpha):+.4f} is {sure}, "
            f"must be below +{options.loss_margin:g}",
        ),
        _judge_classes(comparison, options.class_margin),
    ]
    return Ruling(
        all(is_met for is_met, _ in found), tuple(f"{'ok' if is_met else 'NOT MET'}: {words}" for is_met, words in found)
    )


def first_ruling(comparison: Comparison) -> Ruling:
    """Return what the gate would say of B in a first decision on these tiles, with the default margins."""
    return judge(comparison, GateOptions())


def _judge_classes(comparison: Comparison, class_margin: float) -> tuple[bool, str]:
    """Return whether no class is shown to have lost more than its margin, and the figures of the most suspect one."""
    classes = range(len(comparison.a.classes))
    p_values = [float(loss_of_class(comparison.a, comparison.b, k).p_value(-class_margin)) for k in classes]
    worst = int(np.argmin(p_values))
    return (
        p_values[worst] > CLASS_ALPHA,
        f"sensitivity of {comparison.a.classes[worst]} {comparison.sensitivity[worst].value:+.4f}, no class may be shown to "
        f"lose more than {class_margin:g} (p = {p_values[worst]:.2g}, shown at {CLASS_ALPHA:g})",
    )


def object_to(findings: Findings) -> str:
    """Return why a model may not be the first in Production, or an empty text: the sentence of its verdict.

    It must call the validation tiles better than chance, and no worse than classifiers that see colour alone, whose word must
    be there where the tiles have a colour to see.
    """
    verdict, balanced = verdict_of(findings), findings.evaluation.overall["balanced_accuracy"]
    is_shown = low_end(balanced, findings.predictions) > chance_level(findings.predictions)
    is_compared = bool(findings.details.baselines) or not findings.about.tile_size_px
    return "" if is_compared and is_shown and verdict.sign is not Sign.BAD else verdict.sentence
