"""Training in several processes: how they are started, and what all but the first of them do."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from histo_mlflow.base.interruption import LAUNCHER_VARIABLE
from histo_mlflow.errors import Interrupted, RankFailedError, RankLostError
from histo_mlflow.learning.compute import resolve_device
from histo_mlflow.learning.options import Recipe
from histo_mlflow.learning.ranks import joined_ranks
from histo_mlflow.pipeline.inputs import LearningInputs
from histo_mlflow.pipeline.split import run_split
from histo_mlflow.process import is_launched
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tracking.store import open_store


def launch_if_asked(processes: int) -> None:
    """Become torchrun with the same command, unless one process is enough or torchrun is at work already."""
    if processes > 1 and not is_launched():
        _become_torchrun(processes)


def _become_torchrun(processes: int) -> NoReturn:
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # torchrun would set 1 and say so at length
    os.environ[LAUNCHER_VARIABLE] = str(os.getppid())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    sys.stdout.flush()
    os.execv(sys.executable, [*launcher, "-m", "histo_mlflow", *sys.argv[1:]])  # noqa: S606 - our own command again


def follow(inputs: LearningInputs, splits: Sequence[Split], recipe: Recipe) -> NoReturn:
    """Do the share of a process that is not the first: learn along, keep nothing, and end the process.

    What the first one says itself is not said again: exit code 1.
    """
    try:
        with joined_ranks(resolve_device(recipe.compute.device)) as ranks:
            for split in splits:
                run_split(inputs, split, recipe, on_epoch=lambda _: None, ranks=ranks)
    except RankLostError:
        open_store()  # ends the run of a first process that was killed, which nobody else would
        raise
    except (RankFailedError, Interrupted):
        sys.exit(1)
    sys.exit(0)
