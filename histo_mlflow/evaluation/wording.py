"""How values and intervals are said, and what strikes in results; what is to be thought of them is in `verdict`."""

import math
from collections.abc import Mapping

from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.gallery import most_confused
from histo_mlflow.evaluation.intervals import Estimate


def remarks_on(findings: Findings) -> list[str]:
    """Return the sentences that a reader in a hurry should take along, beside the verdict."""
    evaluation, predictions, details, sentences = findings.evaluation, findings.predictions, findings.details, []
    defined = [row for row in evaluation.per_class if row.estimates["sensitivity"].is_defined]
    weakest = min(defined, key=lambda row: row.estimates["sensitivity"].value)
    if never := [row.name for row in defined if row.estimates["sensitivity"].value == 0]:
        sentences.append(f"Never found: {', '.join(never)}.")
    elif weakest.estimates["sensitivity"].value < 1:
        sentences.append(f"Weakest class: {weakest.name}, of which {in_percent(weakest.estimates['sensitivity'])} are found.")
    else:
        sentences.append("Every tile got its own class.")
    for true, called, n in most_confused(predictions, 1):
        share = n / int(predictions.is_wrong.sum())
        sentences.append(
            f"Commonest error: {predictions.classes[true]} called {predictions.classes[called]}, {n} tiles, "
            f"{100 * share:.0f} % of all errors."
        )
    right, said = 1 - predictions.is_wrong.mean(), predictions.confidence.mean()
    words = "about as sure as it is right" if abs(right - said) < 0.02 else ("too sure" if said > right else "not sure enough")
    sentences.append(f"The model is {words}: its mean confidence is {100 * said:.1f} %, its accuracy {100 * right:.1f} %.")
    if details.robustness:
        worst = max(details.robustness[1:], key=lambda each: each.changed.value)
        sentences.append(f"Least robust to {worst.kind}, {worst.strength}: {in_percent(worst.changed)} of predictions change.")
    return sentences


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
    return f"{100 * estimate.value:.1f} %{interval}"


def in_two_parts(estimate: Estimate) -> tuple[str, str]:
    """Return a value and its interval; "not defined" and nothing where there is none."""
    if not estimate.is_defined:
        return "not defined", ""
    return f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}" if estimate.has_interval else ""


def how_many(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one: "1 tile", "20 tiles"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def short(value: float) -> str:
    """Return a number with as many places as it needs in a table."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4f}"


def as_json(estimate: Estimate) -> dict[str, float | None]:
    """Return value, low and high, None where not defined."""
    return {name: None if math.isnan(value) else value for name, value in vars(estimate).items()}


def from_json(content: Mapping[str, float | None]) -> Estimate:
    """Return what `as_json` was given."""
    return Estimate(**{name: math.nan if content[name] is None else content[name] for name in ("value", "low", "high")})  # type: ignore[arg-type]
