"""Where what is written to a run goes: to MLflow first, which keeps the truth, then to mirrors, which can do no harm."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from mlflow.entities import Run as KeptRun
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.tracking.writes import File, Write

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class RunFacts:
    """What a mirrored run is called and where it belongs.

    Attributes:
        id: Of the MLflow run; the mirrored one has the same, so that mirroring it again adds nothing.
        name: As in MLflow.
        job_type: The entry point.
        parent_id: Of the MLflow run that it is nested in, or None.
        link: Where it is found in MLflow, without a password.
    """

    id: str
    name: str
    job_type: str
    parent_id: str | None
    link: str

    @classmethod
    def of(cls, kept: KeptRun, store_uri: str) -> "RunFacts":
        """Return what is to be known of a run that MLflow keeps at `store_uri`."""
        tags, about, uri = kept.data.tags, kept.info, hide_secrets(store_uri)
        is_server = uri.startswith("http")
        link = f"{uri}/#/experiments/{about.experiment_id}/runs/{about.run_id}" if is_server else f"run {about.run_id} in {uri}"
        job_type = tags.get("histo.entry_point", "run")
        return cls(about.run_id, about.run_name or job_type, job_type, tags.get(MLFLOW_PARENT_RUN_ID), link)


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
    def open(self, facts: RunFacts) -> tuple[Sink, str]:
        """Begin a run, or go on with one of that id; return what its writes go to, and its address."""

    def close(self, error: Exception) -> None:  # noqa: B027 - there may be nothing to close
        """Let go of all open runs: `error` has come, and no write follows."""

    def begin(self, facts: RunFacts) -> "MirroredRun":
        """Begin to mirror a run; never fails."""
        return MirroredRun(self, facts)

    def attempt(self, action: Callable[[], T], run_id: str) -> T | None:
        """Return what `action` returns, or None if it fails or something has failed before."""
        if self.failure is not None:
            return None
        try:
            return action()
        except Exception as error:
            self.failure = first_line(error)
            with suppress(Exception):
                self.close(error)
            _log.warning(
                "the mirror to %s has stopped (%s); MLflow keeps everything, and later `histo mirror %s` sends it",
                self.name, self.failure, run_id,
            )  # fmt: skip
            return None


class MirroredRun:
    """A run in a mirror, to which writing never fails; `address` is where it is kept there, or None."""

    def __init__(self, mirror: Mirror, facts: RunFacts) -> None:
        self._mirror, self._id = mirror, facts.id
        opened = mirror.attempt(lambda: mirror.open(facts), facts.id)
        self._sink: Sink | None = opened[0] if opened else None
        self.address: str | None = opened[1] if opened else None

    def write(self, write: Write) -> None:
        """Hand it on, unless the mirror has stopped or takes no such files."""
        is_taken = not isinstance(write, File) or Path(write.path).suffix in self._mirror.suffixes
        if self._sink is not None and is_taken:
            self._mirror.attempt(partial(self._sink.write, write), self._id)


def first_line(error: BaseException) -> str:
    """Return what an error says, shortened to a part of a line."""
    return str(error).partition("\n")[0][:300] or type(error).__name__
