"""Make the report of an ended run from what it keeps: curves, figures, errors to look at, pages; no number changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.errors import RequestError
from histo_mlflow.jobs import job
from histo_mlflow.options import RUN, JobOptions, option
from histo_mlflow.pipeline.shown import Shown


@dataclass(frozen=True, kw_only=True)
class Report(JobOptions):
    """Make the curves, figures and pages of a run again from what it keeps, or one page of several runs side by side.

    RUN is its id in MLflow, the first characters of it, or `last`; no number changes. With OTHERS one page of all of them is
    written to a file.
    """

    run: str = option(
        "none",
        "A run that has ended, by the first characters of its id, or `last`; with a cross-validation its folds are drawn too.",
        positional=True,
        names=RUN,
        missing="give the id of a run, or `last`: histo report RUN_ID; `histo runs` lists them",
    )
    others: str = option("", "More runs, to be shown beside the first.", positional=True, is_several=True, names=RUN)
    output: str = option("runs.html", "The file that the page of several runs is written to.")


@dataclass(frozen=True)
class ReportResult(Shown):
    """What was drawn.

    Attributes:
        run_id: Of the run that keeps it, or None where several are on one page.
        page: That page, or None.
        drawn: By the id of each run, what was drawn of it.
    """

    run_id: str | None
    page: Path | None
    drawn: Mapping[str, Sequence[str]]


@job("Keep", 1, example="histo report 3f2b...")
def report(options: Report) -> ReportResult:
    """Draw a run and its folds, or several beside each other."""
    from histo_mlflow.console import say
    from histo_mlflow.pipeline.redraw import redraw
    from histo_mlflow.pipeline.side_by_side import draw_chosen
    from histo_mlflow.tracking.found_runs import find_run_at_rest
    from histo_mlflow.tracking.runs import Run
    from histo_mlflow.tracking.store import open_store

    store = open_store()
    chosen = [find_run_at_rest(store, asked).info.run_id for asked in (options.run, *options.others.split())]
    if len(chosen) > 1:
        file = Path(options.output).resolve()
        draw_chosen(file, [Run(store, run_id) for run_id in dict.fromkeys(chosen)])
        say(f"{len(set(chosen))} runs side by side: {file}")
        return ReportResult(None, file, {run_id: [file.name] for run_id in chosen})
    drawn = redraw(Run(store, chosen[0]))
    if not any(drawn.values()):
        raise RequestError(f"run {options.run} keeps nothing that could be drawn; score its model with histo evaluate")
    for run_id, names in drawn.items():
        say(f"run {run_id}: {', '.join(names)}")
    return ReportResult(chosen[0], None, drawn)
