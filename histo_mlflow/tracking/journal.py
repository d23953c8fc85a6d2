"""What the tracking server could not take: kept beside the run on this machine, in order, until it can.

One entry is one file ``000001.json``, which appears whole or not at all; the file of an artifact lies beside it in ``000001``.
"""

import logging
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import platformdirs

from histo_mlflow.base.plain_values import read_small
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import RequestError, StoreError
from histo_mlflow.tracking.kept import kept_run, runs_under
from histo_mlflow.tracking.reach import ANSWER_SECONDS, patience_seconds, reach_of, trying_once
from histo_mlflow.tracking.store import Store
from histo_mlflow.tracking.store_errors import reporting_store_errors
from histo_mlflow.tracking.writes import End, File, Metrics, Target, Write, from_json, to_json

_log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_MAX_ENTRY_BYTES = 2**24


def journals_folder() -> Path:
    """Return the folder that holds the journals.

    ``HISTO_JOURNAL_DIR``, or the user's folder for state; where that can't be written, as in containers, the working folder.
    """
    if chosen := os.environ.get("HISTO_JOURNAL_DIR"):
        return Path(chosen).absolute()
    usual = Path(platformdirs.user_state_dir("histo-mlflow", appauthor=False)) / "journal"
    nearest = next(each for each in (usual, *usual.parents) if each.exists())
    can_be_made = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return usual if can_be_made else Path("histo-journal").absolute()


class Journal:
    """The writes to one run: carried out at once while the server answers, else in order when it does again."""

    def __init__(self, target: Target) -> None:
        self.folder = journals_folder() / target.run_id
        self._target, self._reach = target, reach_of(target.client.tracking_uri)
        self._seconds: int | None = None

    def hurry(self) -> None:
        """Give the server no more than `ANSWER_SECONDS` for each write from now on: somebody waits for the end."""
        self._seconds = ANSWER_SECONDS

    def write(self, write: Write) -> None:
        """Carry out a write, or keep it if the server can't be reached."""
        is_clear = self.deliver() if self._seconds is None else not self.entries() and self._answers()
        if is_clear:
            try:
                self._carry_out(write, self._seconds)
                return
            except Exception as error:
                self._reach.note_lost(error)
        self._keep(write)

    def entries(self) -> list[Path]:
        """Return the files of what is left, the oldest first."""
        return sorted(file for file in self.folder.glob("*.json") if file.stem.isdecimal())

    def deliver(self, *, now: bool = False) -> bool:
        """Send what is left and return whether the server has got all; it is not asked each time while it is away."""
        was_lost = self._reach.is_lost
        if not self._answers(now=now):
            return False
        entries = self.entries()
        try:
            for entry in entries:
                self._carry_out(_read(entry))
                entry.unlink()
                shutil.rmtree(entry.with_suffix(""), ignore_errors=True)
        except RequestError:  # a damaged entry, not a lost server
            raise
        except Exception as error:
            self._reach.note_lost(error)
            return False
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self._reach.is_lost = self._reach.is_given_up = False
        if was_lost:
            _log.warning("the tracking server is back and has got what was kept (%d entries)", len(entries))
        return True

    def wait(self) -> bool:
        """Deliver as soon as the server is back, for as long as MLflow would wait for it, and return whether it is done.

        It is waited for once: what comes after that is only tried.
        """
        if not self.entries() or self.deliver(now=True):
            return True
        if self._reach.is_given_up:
            return False
        _log.warning("waiting for the tracking server, %.0f seconds at most", patience_seconds())
        end = time.monotonic() + patience_seconds()
        while time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            if self.deliver(now=True):
                return True
        self._reach.is_given_up = True
        return False

    def _carry_out(self, write: Write, seconds: int | None = None) -> None:
        with reporting_store_errors(self._reach.uri), trying_once(seconds):
            write.carry_out(self._target)

    def _answers(self, *, now: bool = False) -> bool:
        return self._reach.answers(lambda: self._target.client.get_run(self._target.run_id), now=now)

    def _keep(self, write: Write) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        entries = self.entries()
        entry = self.folder / f"{int(entries[-1].stem) + 1 if entries else 1:06d}.json"
        if isinstance(write, File):
            copy = entry.with_suffix("") / Path(write.path).name
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(write.path, copy)
            _sync(copy)
            write = replace(write, path=str(copy))
        if isinstance(write, Metrics):
            write = replace(write, may_be_there=True)
        draft = entry.with_suffix(".draft")
        draft.write_text(to_json(write))
        _sync(draft)
        draft.replace(entry)
        if isinstance(write, File):
            for each in entries:  # the state to resume from is 170 MB and new in every epoch
                older = _read(each)
                if isinstance(older, File) and older.artifact == write.artifact:
                    each.unlink()
                    shutil.rmtree(each.with_suffix(""))

    def say_what_is_left(self, whole: str) -> None:
        """Name the ways to deliver what is left, if anything is; `whole` is the run that the user began."""
        if self.entries():
            _log.warning(
                "the tracking server has not got all of run %s; the rest lies in %s. When it is back, `histo deliver %s` sends "
                "it, and a training goes on with `--resume %s`",
                self._target.run_id, self.folder, whole, whole,
            )  # fmt: skip


def deliver_left(store: Store, run_id: str) -> Counter[str]:
    """Send what is left of a run, and of those nested in it, and return how many things of which kind.

    Raises:
        SourceNotFoundError: There is no such run.
        RequestError: It is still going on, and will deliver for itself.
        StoreError: The server can't be reached.
    """
    sent: Counter[str] = Counter()
    other = hide_secrets(f"this store is {store.uri}, MLFLOW_TRACKING_URI names another")
    run = kept_run(store.client, run_id, asked=run_id, advice=other)
    for each in (*runs_under(store.client, run), run):
        journal = Journal(Target(store.client, each.info.run_id))
        left = [_read(entry) for entry in journal.entries()]
        if left and each.info.status == "RUNNING" and not isinstance(left[-1], End):
            raise RequestError(f"{each.info.run_id} is still going on, and delivers for itself when the server is back")
        if not journal.wait():
            raise StoreError(hide_secrets(f"the tracking server {store.uri} does not answer; what is left stays where it is"))
        sent.update(write.noun for write in left)
    return sent


def _read(entry: Path) -> Write:
    try:
        write = from_json(read_small(entry, max_bytes=_MAX_ENTRY_BYTES))
        if isinstance(write, File) and Path(write.path).resolve().parent != entry.with_suffix("").resolve():
            raise ValueError("its file lies elsewhere")
    except (ValueError, OSError) as error:
        raise RequestError(
            f"{entry} can't be delivered ({error}); move it away, and what it holds is lost, then deliver again"
        ) from None
    return write


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
