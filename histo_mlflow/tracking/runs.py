"""One run, from its start to a truthful end; every call names its run, so no active run of the caller is touched."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import mlflow
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from histo_mlflow.base.interruption import acknowledge, shielded
from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import Interrupted, StoreError
from histo_mlflow.tracking.journal import Journal
from histo_mlflow.tracking.kept import ENDED_TAG, giving_signs_of, tags_of_this_process
from histo_mlflow.tracking.sinks import MirroredRun, Sink
from histo_mlflow.tracking.store import Store, changing_experiment
from histo_mlflow.tracking.writes import Deletion, End, File, Metrics, Params, Tags, Target, Tiles, Write

_log = logging.getLogger(__name__)
T = TypeVar("T")

LOOKS_TAG = "histo.test_looks"
_DIGEST_CHARACTERS = 36  # MLflow refuses longer ones
_MADE_UP_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what MLflow calls a run that nobody named: able-newt-960


class Run:
    """A handle to one run by its id."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.id = run_id
        self.name = ""
        self.facts: dict[str, Any] | None = None  # see about.py; unknown until they are read
        self.is_reopened = False
        self._mirrored: list[MirroredRun] = []

    @cached_property
    def journal(self) -> Journal:
        """What the server has not got of this run."""
        return Journal(Target(self.store.client, self.id))

    @cached_property
    def experiment_id(self) -> str:
        """Where it is listed."""
        return str(self.store.client.get_run(self.id).info.experiment_id)

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """What the run is written to: MLflow, then the mirrors."""
        return (self.journal, *self._mirrored)

    def mirror(self) -> None:
        """Write to the store's mirrors too, from now on."""
        if self.store.mirrors:
            kept = self.store.client.get_run(self.id)
            self._mirrored = [MirroredRun(mirror, kept, self.store.uri) for mirror in self.store.mirrors]
        if addresses := {each.mirror.tag: each.address for each in self._mirrored if each.address}:
            self.set_tags(addresses)

    def send(self, write: Write) -> None:
        """Hand a write to each sink."""
        for sink in self.sinks:
            sink.write(write)

    def settle(self) -> None:
        """Wait until the server has got all, which some work needs; raise `StoreError` if it stays away."""
        if not self.journal.wait():
            raise StoreError(hide_secrets(f"the tracking server {self.store.uri} does not answer"))

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0, replaces: bool = False) -> None:
        """Send all `metrics`; of a run that goes on those not sent with this value before, unless each `replaces` another."""
        values = {name: float(value) for name, value in metrics.items()}
        self.send(Metrics(values, step, _now_ms(), may_be_there=self.is_reopened and not replaces))

    def log_params(self, params: Mapping[str, object]) -> None:
        """Send the parameters that are not there yet; `mlflow run` has logged its own, in its own spelling.

        A parameter that it logged with another value than the one in use, because a yaml gave it, is sent as ``config/<name>``.
        """
        self.send(Params(dict(params)))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Send all `tags` in one call."""
        self.send(Tags.of(tags))

    def rename(self, name: str, *, made: str) -> None:
        """Call it `name`, unless its present name is the user's own: one that does not begin as the `made` one."""
        if self.name.startswith(made):
            self.set_tags({MLFLOW_RUN_NAME: name})
            self.name = name

    def describe(self, markdown: str) -> None:
        """Set the description that MLflow shows on the run's page."""
        self.set_tags({MLFLOW_RUN_NOTE: markdown})

    def log_dataset(self, *, name: str, split: str, source: str, fingerprint: str, profile: str) -> None:
        """Record a split as a dataset of its own; MLflow keeps only the first of several with the same name and digest."""
        self.send(Tiles(hide_secrets(name), fingerprint[:_DIGEST_CHARACTERS], hide_secrets(source), profile, split))

    def log_file(self, file: Path, folder: str | None = None) -> None:
        """Copy a file to the run's artifacts, under `folder`; it appears whole or not at all."""
        self.send(File(str(file), folder))

    def write(self, artifact: str, content: str | bytes | Callable[[Path], object]) -> None:
        """Keep a text, bytes, or what `content` writes to the file that it is given, as the artifact of that path."""
        folder, _, name = artifact.rpartition("/")
        with scratch_folder() as draft:
            file = draft / name
            if callable(content):
                content(file)
            else:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
            self.log_file(file, folder or None)

    @contextmanager
    def draft(self, folder: str | None = None) -> Iterator[Path]:
        """Give an empty folder whose files are kept under `folder` afterwards, also those written before an error."""
        with scratch_folder() as draft:
            try:
                yield draft
            finally:
                self.log_folder(draft, folder)

    def read(self, artifact: str, reader: Callable[[Path], T]) -> T:
        """Return what `reader` makes of the file or folder of that path, which is there as long as it reads."""
        with scratch_folder() as draft:
            return reader(self.fetch_file(artifact, draft))

    def has_file(self, artifact: str) -> bool:
        """Return whether there is an artifact of that path."""
        return Target(self.store.client, self.id).has_file(artifact)

    def fetch_file(self, artifact: str, folder: Path) -> Path:
        """Copy the artifact of that path into `folder` and return where it is."""
        return Path(self.store.client.download_artifacts(self.id, artifact, str(folder)))

    def delete_file(self, artifact: str) -> None:
        """Delete the artifact of that path, if it is there."""
        self.send(Deletion(artifact))

    def noted_looks(self) -> int:
        """Return how often this run has scored its labelled set so far."""
        return int(self.tags().get(LOOKS_TAG, 0))

    def logged_values(self, metric: str) -> dict[int, float]:
        """Return the values of `metric` by the step at which each was logged, in the order of steps."""
        found = self.store.client.get_metric_history(self.id, metric)
        return {each.step: each.value for each in sorted(found, key=lambda each: each.step)}

    def tags(self) -> dict[str, str]:
        """Return the run's tags."""
        return dict(self.store.client.get_run(self.id).data.tags)

    def log_folder(self, local: Path, folder: str | None = None) -> None:
        """Copy the content of a folder to the run's artifacts, under `folder`."""
        for file in sorted(each for each in local.rglob("*") if each.is_file()):
            inside = (Path(folder or "") / file.relative_to(local)).parent.as_posix()
            self.log_file(file, None if inside == "." else inside)


def begun_run(store: Store) -> Run | None:
    """Return the run that ``mlflow run`` has begun for this command, or None; a leftover variable may name any run."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    found = store.client.get_run(run_id)
    is_open = found.info.status in {"RUNNING", "SCHEDULED"} and found.info.lifecycle_stage == "active"
    is_taken = "histo.entry_point" in found.data.tags
    return Run(store, run_id) if is_open and not is_taken else None


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
    caller's active MLflow run if there is one. An exception of the kind `stopped_by` is not a failure but
    an early end (pruning): KILLED. `resumed` is an ended run that is opened again instead of a new one.
    """
    run: Run | None = None
    try:
        with shielded():
            noted = {**tags_of_this_process(), **(tags or {})}
            run = _reopen(resumed, noted) if resumed else _begin(store, name, parent, noted)
            run.mirror()
        with giving_signs_of(store.client, run.id):
            yield run
        with shielded():
            run.send(End("FINISHED", _now_ms()))
    except BaseException as error:
        is_interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
        if isinstance(error, Interrupted):
            acknowledge()
        if run is not None:
            is_early_end = is_interrupted or isinstance(error, stopped_by or Interrupted)
            _end(run, "KILLED" if is_early_end else "FAILED", error)
            if not is_interrupted:
                with suppress(StoreError):
                    run.settle()
        raise
    else:
        run.settle()
    finally:
        if run is not None:
            run.journal.say_what_is_left((parent or run).id)


def _begin(store: Store, name: str, parent: Run | None, noted: Mapping[str, object]) -> Run:
    with changing_experiment(store.uri, "create runs in it"):
        if parent is None and (begun := _taken_over(store)):
            own_name = store.client.get_run(begun.id).info.run_name or ""
            begun.facts, begun.name = {}, name if not own_name or _MADE_UP_NAME.fullmatch(own_name) else own_name
            store.client.update_run(begun.id, status="RUNNING", name=begun.name)
            begun.set_tags(noted)
            return begun
        active = mlflow.active_run()
        outer = parent.id if parent else active.info.run_id if active else None
        # In one call: who dies between two would leave a run that nobody knows to be dead, or to be a fold.
        tags = {**Tags.of({**resolve_tags(), **noted}).shown(), MLFLOW_RUN_NAME: name}
        if outer:
            tags[MLFLOW_PARENT_RUN_ID] = outer
        experiment_id = parent.experiment_id if parent else store.experiment_id  # a parent that goes on may be in another
        run = Run(store, store.client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
        run.facts, run.name = {}, name
        return run


def _taken_over(store: Store) -> Run | None:
    # Popped, so that a nested run or a later one in this process does not adopt the same run again.
    begun, named = begun_run(store), os.environ.pop("MLFLOW_RUN_ID", None)
    if named and begun is None:
        _log.warning("MLFLOW_RUN_ID=%s names a run that has ended or is another command's; a new run is begun", named)
    return begun


def _reopen(run: Run, noted: Mapping[str, object]) -> Run:
    client = run.store.client
    run.is_reopened, run.name = True, client.get_run(run.id).info.run_name or ""
    run.set_tags(noted)  # first: a run that is RUNNING names its process
    wrapper = begun_run(run.store)
    os.environ.pop("MLFLOW_RUN_ID", None)
    if wrapper:  # `mlflow run` has begun a run of its own, and will end it
        client.update_run(wrapper.id, name="resume")
        client.set_tag(wrapper.id, "histo.resumes", run.id)
    for tag in {"error", ENDED_TAG} & client.get_run(run.id).data.tags.keys():
        client.delete_tag(run.id, tag)
    client.update_run(run.id, status="RUNNING")
    return run


def _end(run: Run, status: str, error: BaseException) -> None:
    run.journal.hurry()
    with shielded():
        for sink in run.sinks:
            for write in (Tags({"error": f"{type(error).__name__}: {error}"}), End(status, _now_ms())):
                with suppress(Exception):  # the first error must reach the user, whatever a sink says to these last calls
                    sink.write(write)


def _now_ms() -> int:
    return int(time.time() * 1000)
