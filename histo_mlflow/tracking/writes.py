"""What is written to a run, as values that can be carried out at once or later, and again without doubling anything."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from histo_mlflow.base.escaping import visible, visible_lines
from histo_mlflow.base.plain_values import build_plain, parse_json, shorten
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.tracking.kept import ENDED_TAG

_TAG_CHARACTERS = 5000


@dataclass(frozen=True)
class Target:
    """The run that is written to."""

    client: MlflowClient
    run_id: str

    @cached_property
    def artifacts(self) -> ArtifactRepository:
        """Where its files are kept."""
        return get_artifact_repository(self.client.get_run(self.run_id).info.artifact_uri, self.client.tracking_uri)

    def has_file(self, artifact: str) -> bool:
        """Return whether there is an artifact of that path."""
        folder = str(Path(artifact).parent)
        present = self.client.list_artifacts(self.run_id, None if folder == "." else folder)
        return any(item.path == artifact for item in present)


@dataclass(frozen=True)
class Metrics:
    """Values of one step, with the time at which they were found.

    What `may_be_there` is looked up first: a run that goes on has sent some before, a server may have taken what it could not
    confirm.
    """

    noun: ClassVar[str] = "row(s) of metrics"
    values: dict[str, float]
    step: int
    time_ms: int
    may_be_there: bool = True

    def carry_out(self, target: Target) -> None:
        """Send in one call what is not there."""
        metrics = [
            Metric(name, value, self.time_ms, self.step)
            for name, value in self.values.items()
            if not (self.may_be_there and self._is_there(target, name))
        ]
        if metrics:
            target.client.log_batch(target.run_id, metrics=metrics)

    def _is_there(self, target: Target, name: str) -> bool:
        kept = target.client.get_metric_history(target.run_id, name)
        return (self.step, _stored(self.values[name])) in {(each.step, _stored(each.value)) for each in kept}


@dataclass(frozen=True)
class Params:
    """Options; `mlflow run` has logged its own, in its own spelling."""

    noun: ClassVar[str] = "set(s) of parameters"
    values: dict[str, Any]

    def shown(self) -> dict[str, Any]:
        """Return them as they may be kept: without secrets."""
        return {name: hide_secrets(value) if isinstance(value, str) else value for name, value in self.values.items()}

    def carry_out(self, target: Target) -> None:
        """Send what is not there; a value unlike the one that `mlflow run` has logged goes to ``config/<name>``."""
        present = target.client.get_run(target.run_id).data.params
        new = {name: value for name, value in self.values.items() if name not in present}
        new |= {
            f"config/{name}": value
            for name, value in self.values.items()
            if name in present and not _means(present[name], value)
        }
        target.client.log_batch(target.run_id, params=[Param(name, _spell(value)) for name, value in new.items()])


@dataclass(frozen=True)
class Tags:
    """Tags, of which a later one replaces an earlier one."""

    noun: ClassVar[str] = "set(s) of tags"
    values: dict[str, str]

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "Tags":
        """Return them as text, which a tag is."""
        return cls({name: str(value) for name, value in values.items()})

    def shown(self) -> dict[str, str]:
        """Return them as they may be kept: without secrets, no longer than MLflow takes."""
        return {name: visible_lines(hide_secrets(value))[:_TAG_CHARACTERS] for name, value in self.values.items()}

    def carry_out(self, target: Target) -> None:
        """Send all in one call."""
        target.client.log_batch(target.run_id, tags=[RunTag(name, value) for name, value in self.shown().items()])


@dataclass(frozen=True)
class Tiles:
    """A part of a tile set; MLflow keeps only the first of several with the same name and digest."""

    noun: ClassVar[str] = "data set(s)"
    name: str
    digest: str
    source: str
    profile: str
    split: str

    def carry_out(self, target: Target) -> None:
        """Record it as an input of the run."""
        dataset = Dataset(self.name, self.digest, "tiles", self.source, profile=self.profile)
        target.client.log_inputs(target.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", self.split)])])


@dataclass(frozen=True)
class File:
    """A file at `path` that becomes an artifact in `folder`, under its own name."""

    noun: ClassVar[str] = "file(s)"
    path: str
    folder: str | None

    @property
    def artifact(self) -> str:
        """The path of the artifact."""
        return str(Path(self.folder or "") / Path(self.path).name)

    def carry_out(self, target: Target) -> None:
        """Copy it; it appears whole or not at all."""
        if not isinstance(target.artifacts, LocalArtifactRepository):
            target.client.log_artifact(target.run_id, self.path, self.folder)
            return
        # MLflow copies in place: a process that is killed meanwhile would leave half a checkpoint.
        kept = Path(target.artifacts.artifact_dir) / self.artifact
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_name(f".{kept.name}.draft")
        try:
            shutil.copyfile(self.path, draft)
            draft.replace(kept)
        finally:
            draft.unlink(missing_ok=True)


@dataclass(frozen=True)
class Deletion:
    """The end of an artifact."""

    noun: ClassVar[str] = "deletion(s)"
    artifact: str

    def carry_out(self, target: Target) -> None:
        """Delete it, if it is there."""
        if target.has_file(self.artifact):
            target.artifacts.delete_artifacts(self.artifact)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class End:
    """The state that a run has come to, and when."""

    noun: ClassVar[str] = "end(s)"
    status: str
    time_ms: int

    def carry_out(self, target: Target) -> None:
        """Set the state, over one that others have concluded from the silence; a tag keeps it where `mlflow run` changes it."""
        if self.status == "FINISHED" and "error" in target.client.get_run(target.run_id).data.tags:
            target.client.delete_tag(target.run_id, "error")
        target.client.set_terminated(target.run_id, self.status, self.time_ms)
        target.client.set_tag(target.run_id, ENDED_TAG, self.status)


Write = Metrics | Params | Tags | Tiles | File | Deletion | End

_KINDS: dict[str, type[Write]] = {kind.__name__: kind for kind in (Metrics, Params, Tags, Tiles, File, Deletion, End)}


def to_json(write: Write) -> str:
    """Return a write as text, which holds no secret."""
    content = asdict(write)
    if isinstance(write, (Params, Tags)):
        content["values"] = write.shown()
    return json.dumps({"kind": type(write).__name__, **content})


def from_json(text: str) -> Write:
    """Return the write that `to_json` has made a text of; raises `ValueError` for another text."""
    content = parse_json(text)
    kind = _KINDS.get(str(content.get("kind"))) if isinstance(content, dict) else None
    if kind is None:
        raise ValueError("it is not a kept write")
    write: Write = build_plain(kind, content)
    artifact = write.artifact if isinstance(write, (File, Deletion)) else ""
    if artifact.startswith("/") or ".." in Path(artifact).parts:
        raise ValueError(f"its artifact {shorten(artifact)} lies outside the run")
    return write


def _stored(value: float) -> str:
    """Return a value as it can be compared: NaN like any other, infinities as the largest numbers that MLflow keeps instead."""
    return str(min(max(value, -sys.float_info.max), sys.float_info.max))  # in this order NaN stays


def _spell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else visible(hide_secrets(str(value)))


def _means(spelling: str, value: object) -> bool:
    """Return whether a logged spelling stands for `value`: 1e-4 for 0.0001."""
    if isinstance(value, float):
        try:
            return float(spelling) == value
        except ValueError:
            return False
    # `mlflow run` logs a text as it quotes it for the shell.
    return spelling.lower() == _spell(value).lower() or spelling == shlex.quote(str(value))
