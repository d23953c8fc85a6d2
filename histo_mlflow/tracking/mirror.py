"""The optional mirror of runs to Weights & Biases: MLflow stays the truth, and whatever goes wrong here costs one warning."""

import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run as KeptRun
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from histo_mlflow.tracking.options import MirrorOptions

_PROJECT = "histo-mlflow"  # unless WANDB_PROJECT names another
_INIT_SECONDS = 20.0
_FIGURES, _TABLES = {".png"}, {".csv"}
MIRRORED_KINDS = _FIGURES | _TABLES
"""Endings of the artifacts that are mirrored."""
_MAX_ROWS = 10_000
_NAMED_FOLDERS = 6
_EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}

Tell = Callable[[str], None]


@dataclass(frozen=True)
class RunFacts:
    """What a mirrored run is called and where it belongs.

    Attributes:
        id: Of the MLflow run; the mirrored one has the same, so that mirroring it again adds nothing.
        name: As in MLflow.
        job_type: The entry point.
        parent_id: Of the MLflow run that it is nested in, or None.
        link: Where it is found in MLflow.
    """

    id: str
    name: str
    job_type: str
    parent_id: str | None
    link: str


class Mirror:
    """Mirrors the runs of this process, until something goes wrong."""

    def __init__(self, *, say: Tell, warn: Tell) -> None:
        self.failure: str | None = None
        self._say, self._warn = say, warn
        self._wandb: Any = None
        self._is_offline = False
        self._folders: list[str] = []
        self._n_open = 0

    def begin(self, facts: RunFacts) -> "MirroredRun":
        """Begin to mirror a run, or go on with it; never fails."""
        mirrored = MirroredRun(self, facts)
        self._n_open += 1
        self.attempt(mirrored.open, facts.id)
        return mirrored

    def attempt(self, action: Callable[[], None], run_id: str) -> None:
        """Do something with W&B; the first error ends the mirror with a warning."""
        if self.failure is not None:
            return
        try:
            action()
        except Exception as error:
            self.failure = _first_line(error)
            if isinstance(error, ConnectionError) and self._wandb is not None:
                with suppress(Exception):  # its process is gone; else it would say so again at the exit, with a traceback
                    self._wandb.teardown(exit_code=1)
            self._warn(
                f"the mirror to W&B has stopped ({self.failure}); MLflow keeps everything, and later `histo mirror {run_id}` "
                "sends it"
            )

    def init(self, **about: Any) -> Any:
        """Return a new W&B run, offline if there is no key or the server can't be reached."""
        wandb = self._library()
        settings = wandb.Settings(
            silent=True, console="off", x_disable_stats=True, disable_git=True, save_code=False, init_timeout=_INIT_SECONDS
        )
        about = {**about, "project": os.environ.get("WANDB_PROJECT", _PROJECT), "reinit": "create_new", "settings": settings}
        if not self._is_offline:
            try:
                return wandb.init(**about)
            except wandb.Error as error:
                self._record_here(f"W&B can't be reached ({_first_line(error)})")
        return wandb.init(**about, mode="offline")

    def _library(self) -> Any:
        if self._wandb is None:
            os.environ.setdefault("WANDB_SILENT", "true")
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            try:
                self._wandb = importlib.import_module("wandb")
            except ImportError as error:
                raise ImportError(f"W&B is not installed ({error}): python -m pip install -e '.[wandb]'") from None
            mode = os.environ.get("WANDB_MODE")
            if mode is None:
                self._log_in()
        return self._wandb

    def _log_in(self) -> None:
        # Before `init`, which without a key would ask for one at the terminal.
        try:
            if not self._wandb.login(prompt=False):
                self._record_here("no W&B key (`wandb login` stores one)")
        except self._wandb.Error as error:
            self._record_here(f"W&B can't be reached ({_first_line(error)})")

    def _record_here(self, reason: str) -> None:
        self._is_offline = True
        self._say(f"{reason}: runs are recorded here instead")

    def end(self, folder: str | None) -> None:
        """Note that a run has ended, and after the last open one say how to send what was recorded offline."""
        self._n_open -= 1
        if folder is not None:
            self._folders.append(os.path.relpath(folder))
        if self._folders and self._n_open == 0:
            many = str(Path(self._folders[0]).parent / "offline-run-*")
            named = " ".join(self._folders) if len(self._folders) <= _NAMED_FOLDERS else many
            self._say(f"recorded for W&B; to send it: wandb sync {named}")
            self._folders.clear()


class MirroredRun:
    """One run in W&B; each method mirrors what `Run` does of the same name."""

    def __init__(self, mirror: Mirror, facts: RunFacts) -> None:
        self.address: str | None = None
        self._mirror, self._facts = mirror, facts
        self._run: Any = None
        self._step = 0

    def open(self) -> None:
        """Begin the run in W&B."""
        facts = self._facts
        self._run = self._mirror.init(
            id=facts.id,
            name=facts.name,
            group=facts.parent_id or facts.id,
            job_type=facts.job_type,
            notes=f"MLflow: {facts.link}",
            config={"mlflow_run_id": facts.id, "mlflow_link": facts.link},
            resume="allow",
        )
        self._run.define_metric("*", step_metric="epoch")
        self.address = self._run.settings.sync_dir if self._run.offline else self._run.url

    def log_params(self, params: Mapping[str, object]) -> None:
        """Add to the configuration."""
        self._attempt(lambda: self._run.config.update(dict(params), allow_val_change=True))

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Add a row to the history; figures of the run as a whole (step 0) go to its summary.

        W&B's own step is the epoch: it takes no row for a step that it has passed, so what is sent twice is there once.
        """
        if step == 0:
            self._attempt(lambda: self._run.summary.update(dict(metrics)))
            return
        self._step = max(step, self._step)
        self._attempt(lambda: self._run.log({"epoch": step, **metrics}, step=step))

    def log_file(self, file: Path, artifact: str) -> None:
        """Show a figure or a table at the last epoch; other files and tables of over 10,000 rows stay in MLflow alone."""
        if file.suffix in MIRRORED_KINDS:
            self._attempt(lambda: self._log_media(file, str(Path(artifact).with_suffix(""))))

    def end(self, status: str) -> None:
        """End the run as MLflow does: FINISHED, FAILED or KILLED."""
        self._attempt(lambda: self._run.finish(exit_code=_EXIT_CODES.get(status, 1)))
        folder = self._run.settings.sync_dir if self._run is not None and self._run.offline else None
        if self._mirror.failure is not None:
            folder = None
            if self._run is not None:
                with suppress(Exception):
                    self._run.finish(exit_code=1)
        self._mirror.end(folder)

    def _log_media(self, file: Path, name: str) -> None:
        wandb = importlib.import_module("wandb")
        if file.suffix in _FIGURES:
            self._run.log({name: wandb.Image(str(file))}, step=self._step)
            return
        table = pd.read_csv(file, nrows=_MAX_ROWS + 1)
        if len(table) <= _MAX_ROWS:
            self._run.log({name: wandb.Table(dataframe=table)}, step=self._step)

    def _attempt(self, action: Callable[[], None]) -> None:
        self._mirror.attempt(action, self._facts.id)


def facts_of(kept: KeptRun, uri: str) -> RunFacts:
    """Return what the mirror has to know of a run that MLflow keeps at `uri`, which is shown and so holds no password."""
    tags, about = kept.data.tags, kept.info
    is_server = uri.startswith("http")
    link = f"{uri}/#/experiments/{about.experiment_id}/runs/{about.run_id}" if is_server else f"run {about.run_id} in {uri}"
    job_type = tags.get("histo.entry_point", "run")
    return RunFacts(about.run_id, about.run_name or job_type, job_type, tags.get(MLFLOW_PARENT_RUN_ID), link)


def make_mirror(options: MirrorOptions, *, say: Tell, warn: Tell) -> Mirror | None:
    """Return the mirror that is asked for, or None."""
    return Mirror(say=say, warn=warn) if options.wandb else None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300] or type(error).__name__
