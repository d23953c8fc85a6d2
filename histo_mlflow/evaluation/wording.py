"""How figures are named, how values and intervals are said, and the verdict in sentences."""

import math
from collections.abc import Mapping, Sequence

from histo_mlflow.evaluation.gallery import most_confused
from histo_mlflow.evaluation.intervals import Figure
from histo_mlflow.evaluation.metrics import Evaluation
from histo_mlflow.evaluation.perturbed import Perturbed

OVERALL_NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy (multi-class)",
    "macro_f1": "Macro F1",
    "matthews_correlation": "Matthews correlation",
    "cohens_kappa": "Cohen's kappa",
    "macro_auroc": "Macro AUROC (one-vs-rest)",
    "macro_auprc": "Macro AUPRC (one-vs-rest)",
    "log_loss": "Log loss (nats)",
    "brier_score": "Brier score (0 to 2)",
    "expected_cost": "Expected cost per tile",
    "ece_top_label": "Calibration error, predicted class",
    "ece_classwise": "Calibration error, mean of classes",
    "aurc": "Area under the risk-coverage curve",
    "coverage_at_99_accuracy": "Coverage at 99 % accuracy",
    "mean_one_vs_rest_accuracy": "One-vs-rest accuracy, mean of classes",
}


def describe_verdict(
    evaluation: Evaluation, robustness: Sequence[Perturbed], baselines: Mapping[str, Mapping[str, Figure]]
) -> list[str]:
    """Return the sentences that a reader in a hurry should take along."""
    predictions, sentences = evaluation.predictions, []
    defined = [row for row in evaluation.per_class if row.figures["sensitivity"].is_defined]
    weakest = min(defined, key=lambda row: row.figures["sensitivity"].value)
    if weakest.figures["sensitivity"].value < 1:
        sentences.append(f"Weakest class: {weakest.name}, of which {in_percent(weakest.figures['sensitivity'])} are found.")
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
    sentences.append(f"The model is {words}: it says {100 * said:.1f} % in mean and is right in {100 * right:.1f} %.")
    if baselines:
        name, value = max(
            ((name, each["balanced_accuracy"].value) for name, each in baselines.items()), key=lambda pair: pair[1]
        )
        if value >= evaluation.overall["balanced_accuracy"].low:
            sentences.append(
                f"It is not clearly ahead of a classifier that sees only colour ({name}: balanced accuracy {value:.3f})."
            )
    if robustness:
        worst = max(robustness[1:], key=lambda each: each.changed.value)
        sentences.append(
            f"It yields most to {worst.kind}, {worst.strength}: {in_percent(worst.changed)} of the classes change."
        )
    missing = [row.name for row in evaluation.per_class if row.n == 0]
    if missing:
        sentences.append(f"No tile of {', '.join(missing)}: nothing is said of finding it, and the means leave it out.")
    return sentences


def in_words(figure: Figure) -> str:
    """Return a value with its interval, or "not defined"."""
    value, interval = in_two_parts(figure)
    return f"{value} ({interval})" if interval else value


def in_percent(figure: Figure) -> str:
    """Return a share with its interval in percent."""
    return f"{100 * figure.value:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def in_two_parts(figure: Figure) -> tuple[str, str]:
    """Return a value and its interval; "not defined" and nothing where there is none."""
    if not figure.is_defined:
        return "not defined", ""
    return f"{figure.value:.3f}", "" if math.isnan(figure.low) else f"{figure.low:.3f} to {figure.high:.3f}"


def short(value: float) -> str:
    """Return a number with as many places as it needs in a table."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4f}"


def as_json(figure: Figure) -> dict[str, float | None]:
    """Return value, low and high, None where not defined."""
    return {name: None if math.isnan(value) else value for name, value in vars(figure).items()}


def from_json(content: Mapping[str, float | None]) -> Figure:
    """Return what `as_json` was given."""
    return Figure(**{name: math.nan if content[name] is None else content[name] for name in ("value", "low", "high")})  # type: ignore[arg-type]
