"""Runs in Weights & Biases: live, or recorded on this machine where there is no key or network."""

import importlib
import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run as KeptRun
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.tracking.pages import page_of_run
from histo_mlflow.tracking.sinks import Mirror
from histo_mlflow.tracking.writes import End, File, Metrics, Params, Tags, Write

_log = logging.getLogger(__name__)

_PROJECT = "histo-mlflow"  # unless WANDB_PROJECT names another
_INIT_SECONDS = 20.0
_PICTURE, _TABLE = ".png", ".csv"
_MAX_ROWS = 10_000
_NAMED_FOLDERS = 6
_LINK = re.compile(r"\[(?P<words>(?:[^\[\]]|\\.)*)\]\(#/[^()\s]*\)")  # to one of MLflow's own pages
_EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}


class Wandb(Mirror):
    """Opens runs in Weights & Biases."""

    name, tag, suffixes = "W&B", "histo.wandb", frozenset({_PICTURE, _TABLE})

    def __init__(self) -> None:
        super().__init__()
        self._wandb: Any = None
        self._is_offline = False
        self._folders: list[str] = []
        self._open: list[Any] = []

    def open(self, kept: KeptRun, store_uri: str) -> tuple["_WandbRun", str]:
        """Begin a run of the same id, offline if there is no key or the server can't be reached."""
        about, tags = kept.info, kept.data.tags
        link = f"run {about.run_id} in {store_uri}"
        if store_uri.startswith("http"):
            link = f"{store_uri.rstrip('/')}/{page_of_run(about.experiment_id, about.run_id)}"
        job, where = tags.get("histo.entry_point", "run"), _Place(f"MLflow: {link}", store_uri)
        run = self._init(
            id=about.run_id,
            name=about.run_name or job,
            group=tags.get(MLFLOW_PARENT_RUN_ID, about.run_id),
            job_type=job,
            notes=where.describe(tags.get(MLFLOW_RUN_NOTE, "")),
            config={"mlflow_run_id": about.run_id, "mlflow_link": link},
        )
        self._open.append(run)
        run.define_metric("*", step_metric="epoch")
        return _WandbRun(self, run, where), run.settings.sync_dir if run.offline else run.url

    def finish(self, run: Any, exit_code: int) -> None:
        """End a run, and after the last open one say how to send what was recorded offline."""
        run.finish(exit_code=exit_code)
        self._open.remove(run)
        if run.offline:
            self._folders.append(os.path.relpath(run.settings.sync_dir))
        self._say_how_to_send()

    def close(self, error: Exception) -> None:
        """End all open runs; what they hold is incomplete."""
        if isinstance(error, ConnectionError) and self._wandb is not None:
            with suppress(Exception):  # its process is gone; else it would say so again at the exit, with a traceback
                self._wandb.teardown(exit_code=1)
        for run in self._open:
            with suppress(Exception):
                run.finish(exit_code=1)
        self._open.clear()
        self._say_how_to_send()

    def _say_how_to_send(self) -> None:
        if self._folders and not self._open:
            many = str(Path(self._folders[0]).parent / "offline-run-*")
            named = " ".join(self._folders) if len(self._folders) <= _NAMED_FOLDERS else many
            _log.info("recorded for W&B; to send it: wandb sync %s", named)
            self._folders.clear()

    def _init(self, **about: Any) -> Any:
        if is_first := self._wandb is None:
            os.environ.setdefault("WANDB_SILENT", "true")
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            try:
                self._wandb = importlib.import_module("wandb")
            except ImportError as error:
                raise ImportError(f"W&B is not installed ({error}): python -m pip install -e '.[wandb]'") from None
        wandb = self._wandb
        settings = wandb.Settings(
            silent=True, console="off", x_disable_stats=True, disable_git=True, save_code=False, init_timeout=_INIT_SECONDS
        )
        project = os.environ.get("WANDB_PROJECT", _PROJECT)
        about |= {"project": project, "resume": "allow", "reinit": "create_new", "settings": settings}
        if not self._is_offline:
            try:
                # Before `init`, which without a key would ask for one at the terminal.
                if not is_first or "WANDB_MODE" in os.environ or wandb.login(prompt=False):
                    return wandb.init(**about)
                reason = "no W&B key (`wandb login` stores one)"
            except wandb.Error as error:
                reason = f"W&B can't be reached ({reason_of(error)})"
            self._is_offline = True
            _log.info("%s: runs are recorded here instead", reason)
        return wandb.init(**about, mode="offline")


@dataclass(frozen=True)
class _Place:
    """Where a run is kept in MLflow: in words, and the store that its links lead to."""

    words: str
    store_uri: str

    def describe(self, markdown: str) -> str:
        """Return a description of the run as it can be read elsewhere; of a store that is a file the links lead nowhere."""
        if self.store_uri.startswith("http"):
            linked = markdown.replace("](#/", f"]({self.store_uri.rstrip('/')}/#/")
        else:
            linked = _LINK.sub(r"\g<words>", markdown)
        return f"{linked}\n\n{self.words}" if markdown else self.words


class _WandbRun:
    """One run in W&B."""

    def __init__(self, place: Wandb, run: Any, where: _Place) -> None:
        self._place, self._run, self._where = place, run, where
        self._epoch = 0

    def write(self, write: Write) -> None:
        """Keep name, description, options, metrics, pictures, tables and the end; W&B has no place for the rest."""
        match write:
            case Tags(values=tags):
                if MLFLOW_RUN_NAME in tags:
                    self._run.name = tags[MLFLOW_RUN_NAME]
                if MLFLOW_RUN_NOTE in tags:
                    self._run.notes = self._where.describe(write.shown()[MLFLOW_RUN_NOTE])
            case Params():
                self._run.config.update(write.shown(), allow_val_change=True)
            case Metrics(step=0):  # of the run as a whole
                self._run.summary.update(write.values)
            case Metrics():
                # W&B's own step is the epoch: it takes no row for one that it has passed, so what is sent twice is there once.
                self._epoch = max(write.step, self._epoch)
                self._run.log({"epoch": write.step, **write.values}, step=write.step)
            case File():
                self._show(Path(write.path), str(Path(write.artifact).with_suffix("")))
            case End():
                self._place.finish(self._run, _EXIT_CODES.get(write.status, 1))

    def _show(self, file: Path, name: str) -> None:
        """Show a picture, or a table that is not too large, at the last epoch."""
        wandb = importlib.import_module("wandb")
        if file.suffix == _PICTURE:
            self._run.log({name: wandb.Image(str(file))}, step=self._epoch)
            return
        table = pd.read_csv(file, nrows=_MAX_ROWS + 1)
        if len(table) <= _MAX_ROWS:
            self._run.log({name: wandb.Table(dataframe=table)}, step=self._epoch)
