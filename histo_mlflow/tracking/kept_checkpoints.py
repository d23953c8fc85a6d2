"""The checkpoints of a run in the tracking store: which are kept, and from which one it goes on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from histo_mlflow.tracking.options import KeepingOptions
from histo_mlflow.tracking.runs import Run

FOLDER = "checkpoints"
BEST, LAST = "best.safetensors", "last.pt"


def keep_weights(run: Run, file: Path, keeping: KeepingOptions, *, is_best: bool, older: list[str]) -> None:
    """Keep the weights of an epoch as `keeping` says; `older` are the names of earlier epochs' files, in order."""
    if keeping.keep_checkpoints != "best":
        run.log_file(file, FOLDER)
    if is_best:
        run.log_file(file.rename(file.with_name(BEST)), FOLDER)
    else:
        file.unlink()
    if keeping.keep_checkpoints.isdigit():
        for name in older[: len(older) + 1 - int(keeping.keep_checkpoints)]:
            run.delete_file(f"{FOLDER}/{name}")


def load_last_state(run: Run, load: Callable[[Path], dict[str, Any]]) -> Mapping[str, Any] | None:
    """Return the state that `run` goes on from, or None if it has not finished an epoch."""
    if not run.has_file(f"{FOLDER}/{LAST}"):
        return None
    return run.read(f"{FOLDER}/{LAST}", load)
