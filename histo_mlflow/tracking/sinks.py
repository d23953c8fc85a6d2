"""Where what is written to a run goes: to MLflow first, which keeps the truth, then to mirrors, which can do no harm."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run as KeptRun

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.tracking.kept import runs_under, state_of
from histo_mlflow.tracking.writes import End, File, Metrics, Params, Write

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Sink(Protocol):
    """Takes what is written to one run."""

    def write(self, write: Write) -> None:
        """Keep it; kinds of writes that have no place there are passed over."""


class Mirror(ABC):
    """A place that keeps runs beside MLflow: the first error ends it for this process, with one warning.

    Attributes:
        failure: What has ended it, or None.
    """

    name: ClassVar[str]
    tag: ClassVar[str]
    """Of a mirrored run: where it is kept there."""
    suffixes: ClassVar[frozenset[str]]
    """Endings of the files that are kept there."""

    def __init__(self) -> None:
        self.failure: str | None = None

    @abstractmethod
    def open(self, kept: KeptRun, store_uri: str) -> tuple[Sink, str]:
        """Begin a run, or go on with the one of its id; return what its writes go to, and its address.

        MLflow keeps the run at `store_uri`, an address without a password.
        """

    def close(self, error: Exception) -> None:  # noqa: B027 - there may be nothing to close
        """Let go of all open runs: `error` has come, and no write follows."""

    def attempt(self, action: Callable[[], T], run_id: str) -> T | None:
        """Return what `action` returns, or None if it fails or something has failed before."""
        if self.failure is not None:
            return None
        try:
            return action()
        except Exception as error:
            self.failure = reason_of(error) or type(error).__name__
            with suppress(Exception):
                self.close(error)
            _log.warning(
                "the mirror to %s has stopped (%s); MLflow keeps everything, and later `histo mirror %s` sends it",
                self.name, self.failure, run_id,
            )  # fmt: skip
            return None


class MirroredRun:
    """A run in a mirror, to which writing never fails; `address` is where it is kept there, or None."""

    def __init__(self, mirror: Mirror, kept: KeptRun, store_uri: str) -> None:
        self.mirror, self._id = mirror, kept.info.run_id
        self._sink: Sink | None = None
        self.address: str | None = None
        if opened := mirror.attempt(lambda: mirror.open(kept, hide_secrets(store_uri)), self._id):
            self._sink, self.address = opened

    def write(self, write: Write) -> None:
        """Hand it on, unless the mirror has stopped or takes no such files."""
        is_taken = not isinstance(write, File) or Path(write.path).suffix in self.mirror.suffixes
        if self._sink is not None and is_taken:
            self.mirror.attempt(partial(self._sink.write, write), self._id)


def replay(client: MlflowClient, kept: KeptRun, mirror: Mirror) -> int:
    """Send what MLflow has kept of an ended run, and of those nested in it while it is open; return how many were sent."""
    sink = MirroredRun(mirror, kept, client.tracking_uri)
    with scratch_folder() as draft:
        for write in _writes_of(client, kept, mirror, draft):
            sink.write(write)
        nested = reversed(runs_under(client, kept))  # in the order in which they were begun
    n_sent = 1 + sum(replay(client, each, mirror) for each in nested if each.info.status != "RUNNING")
    sink.write(End(state_of(kept), kept.info.end_time))
    return n_sent


def _writes_of(client: MlflowClient, kept: KeptRun, mirror: Mirror, draft: Path) -> Iterator[Write]:
    """Give what was written to a run, but for its end; files are fetched into `draft`."""
    run_id = kept.info.run_id
    yield Params(kept.data.params)
    rows: dict[int, dict[str, float]] = {}
    for name in kept.data.metrics:
        for each in client.get_metric_history(run_id, name):
            rows.setdefault(each.step, {})[name] = each.value
    for step in sorted(rows):
        yield Metrics(rows[step], step, kept.info.start_time)
    for artifact in _files(client, run_id):
        if Path(artifact).suffix in mirror.suffixes:
            yield File(client.download_artifacts(run_id, artifact, str(draft)), str(Path(artifact).parent))


def _files(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from _files(client, run_id, item.path)
        else:
            yield item.path
