"""The report of scored tiles, section by section; knows nothing of runs and keeps no number.

A section is a function from the report to what its template (``templates/report/<name of the function>.html.j2``) shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histo_mlflow.evaluation import plots
from histo_mlflow.evaluation.findings import CALIBRATION_METRICS, Findings
from histo_mlflow.evaluation.gallery import GalleryRow, most_confused
from histo_mlflow.evaluation.lettering import write_key
from histo_mlflow.evaluation.metrics import CLASS_METRICS, OVERALL_METRICS
from histo_mlflow.evaluation.page import Section, keep_picture, picture_data, png_of, write_page
from histo_mlflow.evaluation.perturbed import SYMMETRY, changed_by_any
from histo_mlflow.evaluation.wording import describe_verdict, in_percent, in_two_parts, in_words, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_FOLD_COLUMNS = ("balanced_accuracy", "accuracy", "loss", "best_epoch")

Values = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ReportPage:
    """What a report is drawn from, and the folder of its files; `gallery` holds errors to look at."""

    folder: Path
    findings: Findings
    gallery: Sequence[GalleryRow] = ()

    @property
    def classes(self) -> list[str]:
        """Class names in order."""
        return list(self.findings.predictions.classes)

    @property
    def headline(self) -> str:
        """Balanced accuracy with its interval."""
        return in_words(self.findings.evaluation.overall["balanced_accuracy"])

    def keep(self, picture: Picture, name: str) -> str:
        """Write the picture as a file of the report, and return the same for the page."""
        return keep_picture(self.folder / name, picture)


def draw_report(folder: Path, findings: Findings, gallery: Sequence[GalleryRow] = ()) -> None:
    """Draw the pictures of scored tiles and ``report.html`` into `folder`; `gallery` holds errors to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    page = ReportPage(folder, findings, gallery)
    title = f"{findings.about.split}: balanced accuracy {page.headline}"
    write_page(folder / "report.html", title, "report", SECTIONS, page)


def headline(page: ReportPage) -> Values:
    """Whose figures these are, the first of them, and what a reader in a hurry should know."""
    findings = page.findings
    return {
        "about": findings.about,
        "headline": page.headline,
        "n_tiles": len(findings.indices),
        "verdict": describe_verdict(findings.evaluation, findings.details.robustness, findings.details.baselines),
    }


def data_flow(page: ReportPage) -> Values:
    """How many tiles of each class went where."""
    details = page.findings.details
    rows = [(part, int(counts.sum()), counts.tolist()) for part, counts in details.flow.items()]
    return {"flow": rows, "classes": page.classes, "unit": details.split_unit}


def confusion(page: ReportPage) -> Values:
    """Which class is called which."""
    predictions, classes, about = page.findings.predictions, page.classes, page.findings.about
    synthetic = " (synthetic tiles, not tissue)" if about.is_synthetic else ""
    title = f"{about.split}: balanced accuracy {page.headline}, {len(predictions.labels)} tiles{synthetic}"
    return {
        "picture": page.keep(plots.draw_confusion(predictions.confusion, classes, title=title), "confusion_matrix.png"),
        "key": write_key(page.folder, classes),
        "confused": [
            (classes[true], classes[called], n, int(predictions.confusion[true].sum()))
            for true, called, n in most_confused(predictions)
        ],
    }


def overall(page: ReportPage) -> Values:
    """The metrics of all classes together, and the costs behind one of them."""
    estimates = page.findings.evaluation.overall
    rows = [(OVERALL_METRICS[name].words, in_words(estimate)) for name, estimate in estimates.items()]
    return {"overall": rows, "classes": page.classes, "costs": page.findings.costs.tolist()}


def folds(page: ReportPage) -> Values | None:
    """How far the folds of a cross-validation lie apart."""
    table = page.findings.details.folds
    if table is None:
        return None
    columns = [name for name in _FOLD_COLUMNS if name in table]
    rows = [[str(int(row["fold"])), *(short(row[name]) for name in columns)] for _, row in table.iterrows()]
    mean = ["mean", *(short(table[name].mean()) for name in columns)]
    sd = ["sd", *(short(table[name].std(ddof=1)) for name in columns)]
    return {"columns": columns, "rows": [*rows, mean, sd]}


def per_class(page: ReportPage) -> Values:
    """The metrics of each class against the others."""
    of_classes = page.findings.evaluation.per_class
    # A run that was scored before a metric was added has not kept it.
    shown = [
        each for name, each in CLASS_METRICS.items() if each.is_on_page and all(name in row.estimates for row in of_classes)
    ]
    return {
        "columns": [metric.words for metric in shown],
        "rows": [(row.name, row.n, [in_two_parts(row.estimates[metric.name]) for metric in shown]) for row in of_classes],
        "picture": page.keep(plots.draw_roc_and_precision(page.findings.predictions), "roc_pr.png"),
    }


def calibration(page: ReportPage) -> Values:
    """Whether probabilities are as often right as they say, with and without temperature scaling."""
    findings, said, found = page.findings, page.findings.details.calibration, page.findings.before_and_after
    label = "before" if said.is_applied else f"if divided by {said.temperature or 1:.2f}"
    picture = plots.draw_calibration(findings.predictions, findings.rescaled, other_label=label)
    return {
        "picture": page.keep(picture, "calibration.png"),
        "about": findings.about,
        "calibration": said,
        "rows": [
            (OVERALL_METRICS[name].words, f"{found['before'][name]:.4f}", f"{found['after'][name]:.4f}")
            for name in (CALIBRATION_METRICS if found else ())
        ],
    }


def abstention(page: ReportPage) -> Values:
    """What is gained if the model may leave tiles to a person."""
    findings = page.findings
    picture = plots.draw_risk_coverage(findings.predictions, findings.details.calibration.abstain_below)
    return {
        "picture": page.keep(picture, "risk_coverage.png"),
        "calibration": findings.details.calibration,
        "found": findings.abstention,
    }


def robustness(page: ReportPage) -> Values:
    """Which changes of the tiles change the predicted class."""
    found = page.findings.details.robustness
    if not found:
        return {"rows": []}
    changed = ["", *(in_percent(each.changed) for each in found[1:])]  # the first is without a change
    return {
        "rows": [
            (each.kind, each.strength, words, f"{each.accuracy:.3f}", f"{each.balanced_accuracy:.3f}")
            for each, words in zip(found, changed, strict=True)
        ],
        "in_symmetry": in_percent(changed_by_any(found, SYMMETRY)),
        "picture": page.keep(plots.draw_robustness(found), "robustness.png"),
    }


def colour_alone(page: ReportPage) -> Values:
    """How good classifiers are that see no tissue."""
    baselines = page.findings.details.baselines
    compared = {"the model": page.findings.evaluation.overall, **baselines} if baselines else {}
    return {
        "rows": [(name, in_words(each["balanced_accuracy"]), in_words(each["accuracy"])) for name, each in compared.items()]
    }


def errors(page: ReportPage) -> Values:
    """Tiles that got another class, with the evidence for it."""
    gallery, classes = page.gallery, page.classes
    if gallery:
        (page.folder / "gallery.png").write_bytes(png_of(plots.draw_sheet(gallery, classes)))
    return {
        "gallery": [
            {
                "heading": row.heading(classes),
                "shown": [
                    {
                        "tile": picture_data(shown.tile),
                        "overlay": None if shown.overlay is None else picture_data(shown.overlay),
                        "caption": shown.caption(classes),
                    }
                    for shown in row.shown
                ],
            }
            for row in gallery
        ]
    }


def intervals(page: ReportPage) -> Values:
    """How the intervals were made."""
    return {"intervals": page.findings.evaluation.intervals}


def guidelines(_: ReportPage) -> Values:
    """Which item of a reporting guideline asks for which section."""
    return {}


SECTIONS: tuple[Section[ReportPage], ...] = (
    headline, data_flow, confusion, overall, folds, per_class, calibration, abstention, robustness, colour_alone, errors,
    intervals, guidelines,
)  # fmt: skip
"""In the order of the page."""
