"""The page of several runs side by side: folds of a cross-validation, or runs that somebody has chosen; keeps no number.

A section of the page is a template, ``templates/runs/<section>.html.j2``; all are filled with the same values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histo_mlflow.evaluation.caveats import caveats_of
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.page import svg_data, write_page
from histo_mlflow.evaluation.verdict import SPLITS, verdict_of
from histo_mlflow.evaluation.wording import describe_weakest, sensitivities_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

SECTIONS = ("headline", "figures", "classes", "curves", "confusion")
"""In the order of the page."""
FIGURES = ("balanced_accuracy", "accuracy", "macro_auroc", "log_loss", "ece_top_label")
"""Names of `OVERALL_METRICS` in the table."""


@dataclass(frozen=True, eq=False)
class ShownRun:
    """A run among others.

    Attributes:
        name: What it is called.
        findings: On the tiles that it is shown with.
        curves: How its loss and its accuracy went, one panel each; nothing of a run that has not learnt.
        link: Address of its page, or "".
    """

    name: str
    findings: Findings
    curves: Sequence[Picture] = ()
    link: str = ""

    @property
    def short_name(self) -> str:
        """What it is called where there is little room: the characters of its id, if its name ends with them in brackets."""
        found = re.search(r"\((\w+)\)$", self.name)
        return found[1] if found else self.name


def draw_runs(file: Path, runs: Sequence[ShownRun], title: str, whole: ShownRun | None = None) -> None:
    """Write the page of two or more runs; of folds, `whole` is their cross-validation, with what all of them have found."""
    write_page(file, "runs", SECTIONS, show_runs(runs, title, whole), details="curves")


def show_runs(runs: Sequence[ShownRun], title: str, whole: ShownRun | None = None) -> dict[str, Any]:
    """Return what the sections show."""
    classes = Counter(name for run in runs for name in run.findings.predictions.classes)
    shared = [caveat for caveat in caveats_of(runs[0].findings) if all(caveat in caveats_of(run.findings) for run in runs)]
    for k in range(max((len(run.curves) for run in runs), default=0)):
        _share_heights([run.curves[k] for run in runs if len(run.curves) > k])
    return {
        "title": title,
        "runs": [
            {
                "name": run.name,
                "short_name": run.short_name,
                "link": run.link,
                "findings": run.findings,
                "split": SPLITS[run.findings.about.split],
                "verdict": verdict_of(run.findings),
                "weakest": describe_weakest(sensitivities_of(run.findings.evaluation)),
                "caveats": [caveat for caveat in caveats_of(run.findings) if caveat not in shared],
                "curves": [svg_data(each) for each in run.curves],
                "classes": {row.name: row for row in run.findings.evaluation.per_class},
            }
            for run in runs
        ],
        "whole": whole,
        "verdict": verdict_of(whole.findings) if whole else None,
        "weakest": describe_weakest(sensitivities_of(whole.findings.evaluation)) if whole else "",
        "facts": _facts([whole] if whole else runs),
        "shared_caveats": shared,
        "classes": [name for name, n_runs in classes.items() if n_runs > 1],
        "n_left_out": sum(n_runs == 1 for n_runs in classes.values()),
        "figures": FIGURES,
        "are_same_tiles": are_same_tiles([run.findings for run in runs]),
        "are_of_one_set": len({run.findings.about.fingerprint for run in runs}) == 1,
        "spread": _spread(runs),
    }


def are_same_tiles(found: Sequence[Findings]) -> bool:
    """Return whether all were scored on the same tiles, so that their figures may be set against each other."""
    first, *others = found
    return all(
        each.about.fingerprint == first.about.fingerprint and np.array_equal(each.indices, first.indices) for each in others
    )


def _facts(runs: Sequence[ShownRun]) -> dict[str, dict[str, list[str]]]:
    """Return what else must be known of the runs: by what it is, each value with the short names of the runs that have it."""
    facts: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        about = run.findings.about
        values = {
            "Tiles": about.source,
            "Fingerprint": about.fingerprint,
            "Classes": ", ".join(run.findings.predictions.classes),
            "Selected": about.selected or "not stated",
            "Scored": about.date or "not stated",
        }
        for name, value in values.items():
            facts.setdefault(name, {}).setdefault(value, []).append(run.short_name)
    return facts


def _spread(runs: Sequence[ShownRun]) -> tuple[float, float] | None:
    """Return mean and standard deviation of the balanced accuracies; None where classes differ, for they share no scale."""
    if len({frozenset(run.findings.predictions.classes) for run in runs}) > 1:
        return None
    values = [run.findings.evaluation.overall["balanced_accuracy"].value for run in runs]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _share_heights(pictures: Sequence[Picture]) -> None:
    """Give all pictures the same vertical axis, so that they can be compared at a glance."""
    top = max(picture.axes[0].get_ylim()[1] for picture in pictures)
    for picture in pictures:
        picture.axes[0].set_ylim(0, top)
