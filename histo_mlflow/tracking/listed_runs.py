"""Runs as a list shows them: how each stands, its figure, and whether it can go on; reads only."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from mlflow.entities import Run

from histo_mlflow.errors import SourceNotFoundError
from histo_mlflow.tracking.kept import is_silent, process_of, state_of
from histo_mlflow.tracking.named_runs import ENTRY_POINT_TAG, begun_runs
from histo_mlflow.tracking.store import Store

GLANCE = "at_a_glance"
"""Group of the metrics that stand for a run: in MLflow's lists, which go by the alphabet, it comes first."""
FIGURE, LOW, HIGH = (f"{GLANCE}/balanced_accuracy{limit}" for limit in ("", "_low", "_high"))
LOST = "LOST"
"""State of a run that MLflow shows as RUNNING and whose process is gone."""

_RESUMABLE = ("train", "cv")
_EARLIER_FIGURES = ("oof/balanced_accuracy", "test/balanced_accuracy", "val/balanced_accuracy")  # of runs of earlier versions


@dataclass(frozen=True)
class ListedRun:
    """A run that a user has begun.

    Attributes:
        id: In MLflow, 32 characters.
        name: What it is called.
        job: That it is a run of.
        experiment: Name of the one that it is in.
        state: RUNNING, FINISHED, FAILED, KILLED or LOST.
        begun: When, in this machine's time.
        figure: Its balanced accuracy with the 95 % interval if there is one, in words; of which tiles its page says.
        goes_on_with: The command that goes on with it, or nothing.
    """

    id: str
    name: str
    job: str
    experiment: str
    state: str
    begun: datetime
    figure: str
    goes_on_with: str


def list_runs(store: Store, *, limit: int, experiment: str | None = None) -> list[ListedRun]:
    """Return the newest runs that users have begun, the newest first: no folds, no trials.

    Args:
        store: Where they are kept.
        limit: How many at most.
        experiment: Name of the one to look in; by default all.

    Raises:
        SourceNotFoundError: There is no such experiment.
    """
    names = {each.experiment_id: each.name for each in store.client.search_experiments()}
    wanted = [key for key, name in names.items() if experiment in {None, name}]
    if not wanted:
        raise SourceNotFoundError(f"experiment={experiment}: there is none of this name; there are {', '.join(names.values())}")
    found = islice(begun_runs(store.client, experiment_ids=wanted), limit)
    return [_as_listed(run, names[run.info.experiment_id]) for run in found]


def _as_listed(run: Run, experiment: str) -> ListedRun:
    about, tags = run.info, run.data.tags
    job, state = tags[ENTRY_POINT_TAG], state_of(run)
    process = process_of(tags)
    if state == "RUNNING" and process is not None and (process.is_gone or (not process.is_local and is_silent(tags))):
        state = LOST
    is_cut_short = state in {"FAILED", "KILLED", LOST} and not tags.get("error", "").startswith("NonFiniteLossError")
    goes_on_with = ""
    if is_cut_short and job in _RESUMABLE:
        goes_on_with = f"histo {job} --resume {about.run_id[:8]}"
    elif is_cut_short and job == "tune":
        goes_on_with = "the same command"
    begun = datetime.fromtimestamp(about.start_time / 1000)
    return ListedRun(
        about.run_id, about.run_name or job, job, experiment, state, begun, _figure(run.data.metrics), goes_on_with
    )


def _figure(metrics: dict[str, float]) -> str:
    for name in (FIGURE, *_EARLIER_FIGURES):
        if name in metrics:
            has_interval = name == FIGURE and {LOW, HIGH} <= metrics.keys()
            interval = f" ({metrics[LOW]:.3f} to {metrics[HIGH]:.3f})" if has_interval else ""
            return f"{metrics[name]:.3f}{interval}"
    return ""
