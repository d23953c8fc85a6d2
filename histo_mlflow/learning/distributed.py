"""The processes of one training (PyTorch's DDP, started by torchrun) and what they tell one another; knows nothing of runs."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from histo_mlflow.errors import Interrupted, RankLostError, WorkError
from histo_mlflow.interruption import acknowledge, shielded
from histo_mlflow.liveness import is_alive

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=30)  # an epoch's end may wait for a slow store
_FAREWELL_SECONDS = 20.0
_NOTICE_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class Ranks:
    """One process among `size`, which divide each batch among them.

    Attributes:
        rank: From 0.
        size: Number of processes.
        members: Host and process id by rank.
        group: For what is told on the CPU, whatever moves the gradients.
    """

    rank: int = 0
    size: int = 1
    members: tuple[tuple[str, int], ...] = ()
    group: Any = field(default=None, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that keeps the run."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return which of `n` things are this process's: shares differ by one at most, and none is dealt twice."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in rank order, to each of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def from_first(self, value: T) -> T:
        """Return the first process's value to all."""
        if self.size == 1:
            return value
        box = [value if self.is_first else None]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]  # type: ignore[return-value]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each floating tensor by its mean over the processes."""
        if self.size > 1:
            for tensor in tensors:
                if tensor.is_floating_point():
                    dist.all_reduce(tensor)
                    tensor /= self.size

    def lost(self) -> list[int]:
        """Return the other ranks of this machine whose process is gone."""
        here = socket.gethostname()
        others = [(rank, pid) for rank, (host, pid) in enumerate(self.members) if host == here and rank != self.rank]
        return [rank for rank, pid in others if not is_alive(pid)]


ALONE = Ranks()


def is_launched() -> bool:
    """Return whether torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first_process() -> bool:
    """Return whether this process is the one that speaks and keeps the run; also known before the processes have met."""
    return os.environ.get("RANK", "0") == "0" or not is_launched()


def local_device(device: torch.device) -> torch.device:
    """Return this process's own device: of several GPUs the one with its local rank."""
    if is_launched() and device.type == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return device


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Meet the other processes that torchrun has started, if it has; with NCCL on GPUs and gloo on CPUs."""
    if not is_launched():
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(local_device(device))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    met = Ranks(dist.get_rank(), dist.get_world_size(), group=dist.new_group(backend="gloo", timeout=_TIMEOUT))
    ranks = Ranks(met.rank, met.size, tuple(met.gather((socket.gethostname(), os.getpid()))), met.group)
    with noticing_losses(ranks):
        yield ranks
        ranks.gather(None)  # all leave together, so that whoever is gone before is lost
    dist.destroy_process_group()  # not after an error: it would wait for the lost


@contextmanager
def noticing_losses(ranks: Ranks) -> Iterator[None]:
    """Say what has happened when another process dies: its peers see a broken connection, or torchrun's SIGTERM.

    Raises:
        RankLostError: Another process of this machine is gone. Signals are ignored from then on.
    """
    try:
        yield
    except WorkError:
        raise
    except (Interrupted, RuntimeError) as error:  # torch has no common class for a broken connection
        if ranks.size == 1:
            raise
        with shielded():  # torchrun's SIGTERM follows the loss at any moment, and must not be told in its place
            if not isinstance(error, Interrupted):
                # The connection breaks before the process is seen to be dead.
                _wait_for(lambda: bool(ranks.lost()), seconds=_NOTICE_SECONDS)
            elif not ranks.is_first:
                # All get a scheduler's signal at once. The first must find us alive then, or it would take us for lost.
                _wait_for(lambda: 0 in ranks.lost(), seconds=_FAREWELL_SECONDS)
            if lost := ranks.lost():
                acknowledge()
        if lost:
            raise RankLostError(
                f"process {lost[0]} of {ranks.size} ended without notice (killed, or out of memory); "
                "go on with resume=RUN_ID, or with fewer processes"
            ) from error
        raise


def _wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
