"""Sends to a mirror what MLflow has kept of an ended run and of those nested in it."""

from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Run as KeptRun

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.tracking.kept import runs_under
from histo_mlflow.tracking.mirror import MIRRORED_KINDS, Mirror, facts_of
from histo_mlflow.tracking.store import Store, reporting_store_errors


def replay(store: Store, kept: KeptRun, mirror: Mirror) -> int:
    """Send a run, and those nested in it while it is open, and return how many were sent."""
    mirrored = mirror.begin(facts_of(kept, hide_secrets(store.uri)))
    with reporting_store_errors(store.uri):
        mirrored.log_params(kept.data.params)
        rows: dict[int, dict[str, float]] = {}
        for name in kept.data.metrics:
            for each in store.client.get_metric_history(kept.info.run_id, name):
                rows.setdefault(each.step, {})[name] = each.value
        for step in sorted(rows):
            mirrored.log_metrics(rows[step], step=step)
        with scratch_folder() as draft:
            for artifact in _files(store, kept.info.run_id):
                if Path(artifact).suffix in MIRRORED_KINDS:
                    file = store.client.download_artifacts(kept.info.run_id, artifact, str(draft))
                    mirrored.log_file(Path(file), artifact)
        nested = reversed(runs_under(store.client, kept))  # in the order in which they were begun
    n_sent = 1 + sum(replay(store, each, mirror) for each in nested if each.info.status != "RUNNING")
    mirrored.end(kept.info.status)
    return n_sent


def _files(store: Store, run_id: str, folder: str | None = None) -> Iterator[str]:
    for item in store.client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from _files(store, run_id, item.path)
        else:
            yield item.path
