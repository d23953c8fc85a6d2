"""One run, from its start to a truthful end; every call names its run, so no active run of the caller is touched."""

import logging
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from histo_mlflow.errors import Interrupted
from histo_mlflow.interruption import acknowledge, shielded
from histo_mlflow.secrets import hide_secrets
from histo_mlflow.tracking.last_word import insist_on_killed
from histo_mlflow.tracking.mirror import Mirror, MirroredRun, facts_of
from histo_mlflow.tracking.signs_of_life import giving_signs_of, tags_of_this_process
from histo_mlflow.tracking.store import Store, reporting_store_errors

_log = logging.getLogger(__name__)

LOOKS_TAG = "histo.test_looks"
_DIGEST_CHARACTERS = 36  # MLflow refuses longer ones
_TAG_CHARACTERS = 5000
_MADE_UP_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what MLflow calls a run that nobody named: able-newt-960


class Run:
    """A handle to one run by its id."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.id = run_id
        self.is_adopted = False  # begun by `mlflow run`
        self.mirrored: MirroredRun | None = None

    @property
    def _client(self) -> MlflowClient:
        return self.store.client

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Send all `metrics` in one call."""
        now = int(time.time() * 1000)
        with reporting_store_errors(self.store.uri):
            self._client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])
        if self.mirrored:
            self.mirrored.log_metrics(metrics, step=step)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Send the parameters that are not there yet; `mlflow run` has logged its own, in its own spelling.

        A parameter that it logged with another value than the one in use, because a yaml gave it, is sent as ``config/<name>``.
        """
        with reporting_store_errors(self.store.uri):
            present = self._client.get_run(self.id).data.params
            new = {name: value for name, value in params.items() if name not in present}
            new |= {
                f"config/{name}": value
                for name, value in params.items()
                if name in present and not _means(present[name], value)
            }
            self._client.log_batch(self.id, params=[Param(name, _spell(value)) for name, value in new.items()])
        if self.mirrored:
            self.mirrored.log_params(
                {name: _spell(value) if isinstance(value, str) else value for name, value in params.items()}
            )

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Send all `tags` in one call."""
        with reporting_store_errors(self.store.uri):
            kept = [RunTag(name, hide_secrets(str(value))[:_TAG_CHARACTERS]) for name, value in tags.items()]
            self._client.log_batch(self.id, tags=kept)

    def describe(self, markdown: str) -> None:
        """Set the description that MLflow shows on the run's page."""
        self.set_tags({MLFLOW_RUN_NOTE: markdown})

    def log_dataset(self, *, name: str, split: str, source: str, fingerprint: str, profile: str) -> None:
        """Record a split as a dataset of its own; MLflow keeps only the first of several with the same name and digest."""
        dataset = Dataset(hide_secrets(name), fingerprint[:_DIGEST_CHARACTERS], "tiles", hide_secrets(source), profile=profile)
        with reporting_store_errors(self.store.uri):
            self._client.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", split)])])

    def log_file(self, file: Path, folder: str | None = None) -> None:
        """Copy a file to the run's artifacts, under `folder`; it appears whole or not at all."""
        self._keep_file(file, folder)
        if self.mirrored:
            self.mirrored.log_file(file, f"{folder}/{file.name}" if folder else file.name)

    def _keep_file(self, file: Path, folder: str | None) -> None:
        with reporting_store_errors(self.store.uri):
            if not isinstance(self._repository, LocalArtifactRepository):
                self._client.log_artifact(self.id, str(file), folder)
                return
            # MLflow copies in place: a process that is killed meanwhile would leave half a checkpoint.
            target = Path(self._repository.artifact_dir) / (folder or "") / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name}.draft")
            try:
                shutil.copyfile(file, draft)
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)

    def has_file(self, artifact: str) -> bool:
        """Return whether there is an artifact of that path."""
        folder = str(Path(artifact).parent)
        with reporting_store_errors(self.store.uri):
            present = self._client.list_artifacts(self.id, None if folder == "." else folder)
        return any(item.path == artifact for item in present)

    def fetch_file(self, artifact: str, folder: Path) -> Path:
        """Copy the artifact of that path into `folder` and return where it is."""
        with reporting_store_errors(self.store.uri):
            return Path(self._client.download_artifacts(self.id, artifact, str(folder)))

    def delete_file(self, artifact: str) -> None:
        """Delete the artifact of that path, if it is there."""
        if self.has_file(artifact):
            with reporting_store_errors(self.store.uri):
                self._repository.delete_artifacts(artifact)  # type: ignore[no-untyped-call]

    @cached_property
    def _repository(self) -> ArtifactRepository:
        return get_artifact_repository(self._client.get_run(self.id).info.artifact_uri)

    def noted_looks(self) -> int:
        """Return how often this run has scored its labelled set so far."""
        return int(self.tags().get(LOOKS_TAG, 0))

    def logged_steps(self, metric: str) -> set[int]:
        """Return the steps at which `metric` was logged."""
        with reporting_store_errors(self.store.uri):
            return {each.step for each in self._client.get_metric_history(self.id, metric)}

    def tags(self) -> dict[str, str]:
        """Return the run's tags."""
        with reporting_store_errors(self.store.uri):
            return dict(self._client.get_run(self.id).data.tags)

    def log_folder(self, local: Path, folder: str | None = None) -> None:
        """Copy the content of a folder to the run's artifacts, under `folder`."""
        with reporting_store_errors(self.store.uri):
            self._client.log_artifacts(self.id, str(local), folder)
        if self.mirrored:
            for file in sorted(each for each in local.rglob("*") if each.is_file()):
                self.mirrored.log_file(file, str(Path(folder or "") / file.relative_to(local)))


def _spell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else hide_secrets(str(value))


def _means(spelling: str, value: object) -> bool:
    """Return whether a logged spelling stands for `value`: 1e-4 for 0.0001."""
    if isinstance(value, float):
        try:
            return float(spelling) == value
        except ValueError:
            return False
    # `mlflow run` logs a text as it quotes it for the shell.
    return spelling.lower() == _spell(value).lower() or spelling == shlex.quote(str(value))


def begun_run(store: Store) -> Run | None:
    """Return the run that ``mlflow run`` has begun for a command that opens none itself, or None."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    return Run(store, run_id) if run_id and _is_free(store, run_id) else None


def _is_free(store: Store, run_id: str) -> bool:
    """Return whether a run has not ended, was not deleted and is no command's of ours yet; a leftover variable may name any."""
    with reporting_store_errors(store.uri):
        found = store.client.get_run(run_id)
    is_open = found.info.status in {"RUNNING", "SCHEDULED"} and found.info.lifecycle_stage == "active"
    return is_open and "histo.entry_point" not in found.data.tags


@contextmanager
def open_run(
    store: Store,
    name: str,
    *,
    parent: Run | None = None,
    tags: Mapping[str, object] | None = None,
    stopped_by: type[BaseException] | None = None,
    resumed: Run | None = None,
) -> Iterator[Run]:
    """Open a run and end it by what the block does: FINISHED, FAILED with the error in a tag, or KILLED.

    Without `parent` this is the run that ``mlflow run`` has begun (``MLFLOW_RUN_ID``), if it has; else a new one, nested in the
    caller's active MLflow run if there is one. An exception of the kind `stopped_by` is no failure but
    an early end (pruning): KILLED. `resumed` is an ended run that is opened again instead of a new one.
    """
    run: Run | None = None
    try:
        with shielded():
            run = _reopen(resumed) if resumed else _begin(store, name, parent)
            run.set_tags({**tags_of_this_process(), **(tags or {})})
            if store.mirror:
                _mirror(run, store.mirror)
        with giving_signs_of(store.client, run.id):
            yield run
        with shielded():
            with reporting_store_errors(store.uri):
                store.client.set_terminated(run.id, "FINISHED")
            if run.mirrored:
                run.mirrored.end("FINISHED")
    except BaseException as error:
        is_early_end = isinstance(error, (Interrupted, KeyboardInterrupt, stopped_by or Interrupted))
        if isinstance(error, Interrupted):
            acknowledge()
        if run is not None:
            _end(run, "KILLED" if is_early_end else "FAILED", error)
        raise


def _mirror(run: Run, mirror: Mirror) -> None:
    with reporting_store_errors(run.store.uri):
        kept = run.store.client.get_run(run.id)
    run.mirrored = mirror.begin(facts_of(kept, hide_secrets(run.store.uri)))
    if run.mirrored.address:
        run.set_tags({"histo.wandb": run.mirrored.address})


def _begin(store: Store, name: str, parent: Run | None) -> Run:
    with reporting_store_errors(store.uri):
        # Popped, so that a nested run or a later one in this process does not adopt the same run again.
        adopted = os.environ.pop("MLFLOW_RUN_ID", None) if parent is None else None
        if adopted and not _is_free(store, adopted):
            _log.warning("MLFLOW_RUN_ID=%s names a run that has ended or is another command's; a new run is begun", adopted)
            adopted = None
        if adopted:
            begun = store.client.get_run(adopted).info.run_name or ""
            kept = begun if begun and not _MADE_UP_NAME.fullmatch(begun) else name
            store.client.update_run(adopted, status=RunStatus.to_string(RunStatus.RUNNING), name=kept)
            run = Run(store, adopted)
            run.is_adopted = True
            return run
        outer = parent.id if parent else _active_run_id()
        seen = {tag: hide_secrets(str(value)) for tag, value in resolve_tags().items()}
        tags = {**seen, MLFLOW_RUN_NAME: name, **({MLFLOW_PARENT_RUN_ID: outer} if outer else {})}
        return Run(store, store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id)


def _reopen(run: Run) -> Run:
    client = run.store.client
    with reporting_store_errors(run.store.uri):
        wrapper = os.environ.pop("MLFLOW_RUN_ID", None)
        if wrapper and _is_free(run.store, wrapper):
            # `mlflow run` has begun a run of its own, and will end it.
            client.update_run(wrapper, name="resume")
            client.set_tag(wrapper, "histo.resumes", run.id)
        client.update_run(run.id, status=RunStatus.to_string(RunStatus.RUNNING))
        if "error" in client.get_run(run.id).data.tags:
            client.delete_tag(run.id, "error")
    return run


def _end(run: Run, status: str, error: BaseException) -> None:
    with shielded():
        # The first error must reach the user, whatever the store says to these last calls.
        with suppress(Exception):
            run.set_tags({"error": f"{type(error).__name__}: {error}"})
        with suppress(Exception):
            run.store.client.set_terminated(run.id, status)
            if run.is_adopted and status == "KILLED":
                insist_on_killed(run.store.uri, run.id)
        if run.mirrored:
            run.mirrored.end(status)


def _active_run_id() -> str | None:
    active = mlflow.active_run()
    return active.info.run_id if active else None
