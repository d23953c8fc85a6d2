"""The face of a run: the few metrics that stand for it, its description in MLflow, and what the terminal says at its end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from histo_mlflow.base.escaping import markdown
from histo_mlflow.evaluation.caveats import caveats_of
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.verdict import SPLITS, verdict_of
from histo_mlflow.evaluation.wording import in_words
from histo_mlflow.pipeline.outlook import describe_file, describe_page, short_id
from histo_mlflow.tracking.addresses import run_page
from histo_mlflow.tracking.listed_runs import FIGURE, GLANCE, HIGH, LOW
from histo_mlflow.tracking.runs import Run

_HEADLINES = {"balanced_accuracy": "Balanced accuracy", "log_loss": "Log loss"}


def glance_so_far(figure: float, loss: float, n_classes: int) -> dict[str, float]:
    """Return the metrics that stand for a training that goes on: those of its best epoch so far, and chance."""
    return {FIGURE: figure, f"{GLANCE}/log_loss": loss, f"{GLANCE}/chance": 1 / n_classes}


def glance_of(findings: Findings) -> dict[str, float]:
    """Return the metrics that stand for a run: its figure with the interval, chance, what colour alone tells, the loss."""
    overall = findings.evaluation.overall
    balanced, colour = (
        overall["balanced_accuracy"],
        [each["balanced_accuracy"].value for each in findings.details.baselines.values()],
    )
    known = glance_so_far(balanced.value, overall["log_loss"].value, len(np.unique(findings.predictions.labels)))
    known |= {LOW: balanced.low, HIGH: balanced.high, f"{GLANCE}/colour_alone": max(colour, default=math.nan)}
    return {name: value for name, value in known.items() if math.isfinite(value)}


def show_at_a_glance(run: Run, metrics: Mapping[str, float]) -> None:
    """Let these metrics stand for the run, in place of earlier ones."""
    run.log_metrics(metrics, replaces=True)


@dataclass(frozen=True)
class Description:
    """What MLflow shows of a run, as Markdown, first what a reader in a hurry wants: it folds all but a few lines away.

    Attributes:
        verdict: In a sentence.
        figures: In a line.
        more: Paragraphs.
    """

    verdict: str
    figures: str = ""
    more: Sequence[str] = ()

    @classmethod
    def of(cls, findings: Findings, *more: str) -> "Description":
        """Return what is to be said of a scored split; `more` is Markdown."""
        verdict, said = verdict_of(findings), [f"- {markdown(caveat.words)}" for caveat in caveats_of(findings)]
        paragraphs = ["\n".join(said), f"Next: {markdown(verdict.next_step)}", *more]
        return cls(verdict.describe(), describe_figures(findings), paragraphs)

    def put(self, run: Run, links: Mapping[str, str]) -> None:
        """Set it as the description of `run`, with `links` to MLflow's own pages by their words."""
        linked = " · ".join(f"[{markdown(words)}]({page})" for words, page in links.items())
        lines = "  \n".join(part for part in (markdown(self.figures), linked) if part)  # of one paragraph, to be seen unfolded
        run.describe("\n\n".join(part for part in (f"**{markdown(self.verdict)}**", lines, *self.more) if part))


def report_links(run: Run, findings: Findings) -> dict[str, str]:
    """Return the link to the report of a scored split, by its words."""
    return {"Report": run_page(run, report_of(findings))}


def report_of(findings: Findings) -> str:
    """Return which artifact the report of a scored split is."""
    return f"evaluation/{findings.about.split}/report.html"


def describe_end(run: Run, findings: Findings) -> str:
    """Return where to look when a run that has scored something has ended, and what to do next, in lines."""
    return describe_place(run, report_of(findings), verdict_of(findings).next_step)


def describe_place(run: Run, page: str, next_step: str) -> str:
    """Return where an artifact and its run are to be seen, and what to do next, in lines."""
    where = [f"report: {describe_file(run, page)}", f"run:    {short_id(run)} {run.name}", f"        {describe_page(run)}"]
    return "\n".join([*where, f"next:   {next_step}"])


def describe_figures(findings: Findings) -> str:
    """Return the headline figures of a scored split with their intervals, in a line."""
    overall = findings.evaluation.overall
    said = ", ".join(f"{words[0].lower()}{words[1:]} {in_words(overall[name])}" for name, words in _HEADLINES.items())
    return f"{len(findings.predictions.labels)} {SPLITS.get(findings.about.split, findings.about.split)} tiles: {said}"


def folds_table(run: Run, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Return a table of the folds of `run` as Markdown, each with a link to its own run."""
    header = ["fold", *columns]
    lines = [f"| {' | '.join(words.replace('_', ' ') for words in header)} |", "|" + "---|" * len(header)]
    for row in rows:
        page = run_page(Run(run.store, str(row["run_id"])))
        lines.append(f"| [{row['fold']}]({page}) | {' | '.join(f'{row[name]:.4f}' for name in columns)} |")
    return "\n".join(lines)
