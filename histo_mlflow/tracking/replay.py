"""Sends to the mirrors what MLflow has kept of an ended run and of those nested in it."""

from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Run as KeptRun

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.tracking.kept import runs_under, state_of
from histo_mlflow.tracking.sinks import Mirror, RunFacts
from histo_mlflow.tracking.store import Store
from histo_mlflow.tracking.writes import End, File, Metrics, Params, Write


def replay(store: Store, kept: KeptRun, mirror: Mirror) -> int:
    """Send a run, and those nested in it while it is open, and return how many were sent."""
    sink = mirror.begin(RunFacts.of(kept, store.uri))
    with scratch_folder() as draft:
        for write in _writes_of(store, kept, mirror, draft):
            sink.write(write)
        nested = reversed(runs_under(store.client, kept))  # in the order in which they were begun
    n_sent = 1 + sum(replay(store, each, mirror) for each in nested if each.info.status != "RUNNING")
    sink.write(End(state_of(kept), kept.info.end_time))
    return n_sent


def _writes_of(store: Store, kept: KeptRun, mirror: Mirror, draft: Path) -> Iterator[Write]:
    """Give what was written to a run, but for its end; files are fetched into `draft`."""
    run_id = kept.info.run_id
    yield Params(kept.data.params)
    rows: dict[int, dict[str, float]] = {}
    for name in kept.data.metrics:
        for each in store.client.get_metric_history(run_id, name):
            rows.setdefault(each.step, {})[name] = each.value
    for step in sorted(rows):
        yield Metrics(rows[step], step, kept.info.start_time)
    for artifact in _files(store, run_id):
        if Path(artifact).suffix in mirror.suffixes:
            yield File(store.client.download_artifacts(run_id, artifact, str(draft)), str(Path(artifact).parent))


def _files(store: Store, run_id: str, folder: str | None = None) -> Iterator[str]:
    for item in store.client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from _files(store, run_id, item.path)
        else:
            yield item.path
