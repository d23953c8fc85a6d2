"""How values and intervals are said, and what strikes in results; what is to be thought of them is in `verdict`."""

import math
from collections.abc import Iterable, Mapping

from histo_mlflow.base.counting import many
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.gallery import most_confused
from histo_mlflow.evaluation.intervals import Estimate
from histo_mlflow.evaluation.marks import meaning_of
from histo_mlflow.evaluation.metrics import Evaluation
from histo_mlflow.evaluation.predictions import Predictions

_MOST_PAIRS = 4
_PERCENT = "\u00a0%"  # stays on the line of its number


def remarks_on(findings: Findings) -> list[str]:
    """Return the sentences that a reader in a hurry should take along, beside the verdict."""
    predictions, details = findings.predictions, findings.details
    sentences = [describe_weakest(sensitivities_of(findings.evaluation)), *_describe_commonest(predictions)]
    right, said = 1 - predictions.is_wrong.mean(), predictions.confidence.mean()
    words = "about as sure as it is right" if abs(right - said) < 0.02 else ("too sure" if said > right else "not sure enough")
    sentences.append(
        f"The model is {words}: its mean confidence is {100 * said:.1f}{_PERCENT}, its accuracy {100 * right:.1f}{_PERCENT}."
    )
    if details.robustness:
        worst = max(details.robustness[1:], key=lambda each: each.changed.value)
        sentences.append(f"Least robust to {worst.kind}, {worst.strength}: {in_percent(worst.changed)} of predictions change.")
    return sentences


def sensitivities_of(evaluation: Evaluation) -> dict[str, Estimate]:
    """Return the sensitivity of each class, by name."""
    return {row.name: row.estimates["sensitivity"] for row in evaluation.per_class}


def describe_weakest(sensitivities: Mapping[str, Estimate]) -> str:
    """Return which class is found least, or which are."""
    lowest = min(each.value for each in sensitivities.values() if each.is_defined)
    weakest = {in_full(name): each for name, each in sensitivities.items() if each.value == lowest}
    if lowest == 1:
        return "Every tile got its own class."
    if lowest == 0:
        return f"Never found: {', '.join(weakest)}."
    told = "; ".join(f"{name}, of which {in_percent(each)} are found" for name, each in weakest.items())
    return f"Weakest class: {told}." if len(weakest) == 1 else f"{len(weakest)} classes are equally weak: {told}."


def _describe_commonest(predictions: Predictions) -> list[str]:
    """Return which error is the commonest, or which are; nothing where there is none."""
    confused, names = most_confused(predictions), predictions.classes
    if not confused:
        return []
    most = confused[0][2]
    pairs = [f"{names[true]} called {names[called]}" for true, called, n in confused if n == most]
    share = f"{100 * most / int(predictions.is_wrong.sum()):.0f}{_PERCENT} of all errors"
    if len(pairs) == 1:
        return [f"Commonest error: {pairs[0]}, {many(most, 'tile')}, {share}."]
    named = "; ".join(pairs[:_MOST_PAIRS]) + (f" and {len(pairs) - _MOST_PAIRS} more" if len(pairs) > _MOST_PAIRS else "")
    return [f"{len(pairs)} errors are equally common, {many(most, 'tile')} or {share} each: {named}."]


def in_full(name: str) -> str:
    """Return a class with what it is, where that is known."""
    return f"{name} ({meaning_of(name)})" if meaning_of(name) else name


def have_intervals(estimates: Iterable[Estimate]) -> bool:
    """Return whether any of them has an interval, so that a caption may speak of one."""
    return any(each.has_interval for each in estimates)


def signed(difference: Estimate) -> str:
    """Return a difference with its interval, or "not defined"."""
    if not difference.is_defined:
        return "not defined"
    interval = f"{difference.low:+.4f} to {difference.high:+.4f}" if difference.has_interval else "no interval"
    return f"{difference.value:+.4f} ({interval})"


def in_words(estimate: Estimate) -> str:
    """Return a value with its interval, or "not defined"."""
    value, interval = in_two_parts(estimate)
    return f"{value} ({interval})" if interval else value


def in_percent(estimate: Estimate) -> str:
    """Return a share with its interval in percent."""
    interval = f" ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})" if estimate.has_interval else ""
    return f"{100 * estimate.value:.1f}{_PERCENT}{interval}"


def in_two_parts(estimate: Estimate) -> tuple[str, str]:
    """Return a value and its interval; "not defined" and nothing where there is none."""
    if not estimate.is_defined:
        return "not defined", ""
    return f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}" if estimate.has_interval else ""


def short(value: float) -> str:
    """Return a number with as many places as it needs in a table."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4f}"


def as_json(estimate: Estimate) -> dict[str, float | None]:
    """Return value, low and high, None where not defined."""
    return {name: None if math.isnan(value) else value for name, value in vars(estimate).items()}


def from_json(content: Mapping[str, float | None]) -> Estimate:
    """Return what `as_json` was given."""
    return Estimate(**{name: math.nan if content[name] is None else content[name] for name in ("value", "low", "high")})  # type: ignore[arg-type]
