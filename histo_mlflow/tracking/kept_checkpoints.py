"""The checkpoints of a run in the tracking store: which are kept, and from which one it goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.errors import OptionError
from histo_mlflow.tracking.runs import Run

FOLDER = "checkpoints"
BEST, LAST = "best.safetensors", "last.pt"


@dataclass(frozen=True)
class KeepingOptions:
    """What stays of a training, and from which one it goes on."""

    keep_checkpoints: str = field(
        default="all",
        metadata={
            "help": "Weights of which epochs stay with the run: all, best (43 MB), or a number: the last so many beside the "
            "best. The state to resume from always stays (170 MB)."
        },
    )
    resume: str = field(
        default="none", metadata={"help": "Id of an interrupted run to go on with: its options and tiles, the same result."}
    )
    take_over: bool = field(
        default=False,
        metadata={
            "help": "Resume a run of another machine although it gave a sign of life in the last 5 minutes (true or false); "
            "only if it has surely ended, else two processes write to one run."
        },
    )
    given: frozenset[str] = frozenset()  # names of the options that were typed or in a yaml, which a resumed run is held to

    def __post_init__(self) -> None:
        is_number = self.keep_checkpoints.isdigit() and int(self.keep_checkpoints) > 0
        if self.keep_checkpoints not in {"all", "best"} and not is_number:
            raise OptionError(f"keep_checkpoints={self.keep_checkpoints}: must be all, best or a number of epochs")

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier run is to go on."""
        return self.resume not in {"", "none"}


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
    with scratch_folder() as draft:
        return load(run.fetch_file(f"{FOLDER}/{LAST}", draft))
