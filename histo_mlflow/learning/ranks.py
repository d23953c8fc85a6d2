"""The processes of one training (PyTorch's DDP, started by torchrun) and what they tell one another; knows nothing of runs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from histo_mlflow.base.interruption import acknowledge, shielded
from histo_mlflow.base.liveness import Process
from histo_mlflow.errors import Interrupted, RankFailedError, RankLostError, WorkError
from histo_mlflow.process import is_launched

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=30)  # an epoch's end may wait for a slow store
_NOTICE_SECONDS = 5.0
_DONE, _INTERRUPTED = "done", "interrupted"
_SYMPTOMS = (Interrupted, RuntimeError)  # torch has no common class for a broken connection


@dataclass(frozen=True, eq=False)
class Ranks:
    """One process among `size`, which divide each batch among them.

    Attributes:
        rank: From 0.
        size: Number of processes.
        members: The processes by rank.
        group: For what is told on the CPU, whatever moves the gradients.
        store: Where each notes how it has ended; torchrun keeps it, so it outlives every one of them.
    """

    rank: int = 0
    size: int = 1
    members: tuple[Process, ...] = ()
    group: Any = field(default=None, repr=False)
    store: Any = field(default=None, repr=False)

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

    def add_up(self, tensor: Tensor) -> Tensor:
        """Return `tensor` after it was replaced by its sum over the processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def note_end(self, how: str) -> None:
        """Leave a note for the others, which would otherwise count this process as lost."""
        with suppress(RuntimeError):  # torchrun may be gone
            self.store.set(_key_of(self.rank), how)
            self.store.check([_key_of(self.rank)])  # an answer: the note has arrived

    def cut_short(self) -> dict[int, str | None]:
        """Return how the other ranks that ended before their work was done did; None: gone from this machine without a word."""
        ends: dict[int, str | None] = {}
        for rank, process in enumerate(self.members):
            if rank == self.rank:
                continue
            is_gone = process.is_gone  # asked before the note, which comes before the end
            note = self._note_of(rank)
            if note != _DONE and (note is not None or is_gone):
                ends[rank] = note
        return ends

    def _note_of(self, rank: int) -> str | None:
        with suppress(RuntimeError):
            if self.store.check([_key_of(rank)]):
                return bytes(self.store.get(_key_of(rank))).decode()
        return None


def _key_of(rank: int) -> str:
    return f"histo/end/{rank}"


ALONE = Ranks()


def local_device(device: torch.device) -> torch.device:
    """Return this process's own device: of several GPUs the one with its local rank."""
    if is_launched() and device.type == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return device


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Meet the other processes that torchrun has started, if it has; with NCCL on GPUs and gloo on CPUs.

    Raises:
        RankLostError, RankFailedError: As `noticing_losses`, if torchrun's signal tells of it first.
    """
    if not is_launched():
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(local_device(device))
    store, rank, size = next(rendezvous("env://", timeout=_TIMEOUT))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    met = Ranks(rank, size, group=dist.new_group(backend="gloo", timeout=_TIMEOUT))
    ranks = replace(met, members=tuple(met.gather(Process.of(os.getpid()))), store=store)
    try:
        with noticing_losses(ranks, (Interrupted,)):
            yield ranks
    except BaseException as error:
        with shielded():
            ranks.note_end(_INTERRUPTED if isinstance(error, Interrupted) else f"{type(error).__name__}: {error}")
            acknowledge()  # the others end for this now, and torchrun's signal for that must not disturb how the runs are ended
        raise
    ranks.note_end(_DONE)
    dist.destroy_process_group()  # not after an error: it would wait for the lost


@contextmanager
def noticing_losses(ranks: Ranks, symptoms: tuple[type[BaseException], ...] = _SYMPTOMS) -> Iterator[None]:
    """Say what has happened when another process ends: its peers see a broken connection, or torchrun's SIGTERM.

    Raises:
        RankLostError: Another process of this machine is gone without a word.
        RankFailedError: Another process has noted an error. After either, signals are ignored.
        Interrupted: Another process was interrupted.
    """
    try:
        yield
    except symptoms as error:
        if ranks.size == 1 or isinstance(error, WorkError):
            raise
        with shielded():  # torchrun's SIGTERM follows at any moment, and must not be told in place of its cause
            if not isinstance(error, Interrupted):
                # The connection breaks before the other process is seen to have ended.
                latest = time.monotonic() + _NOTICE_SECONDS
                while not ranks.cut_short() and time.monotonic() < latest:
                    time.sleep(0.1)
            cause = _cause_in(ranks)
            if isinstance(cause, WorkError):
                acknowledge()
        if cause is None or (isinstance(cause, Interrupted) and isinstance(error, Interrupted)):
            raise
        raise cause from error


def _cause_in(ranks: Ranks) -> RankLostError | RankFailedError | Interrupted | None:
    """Return why this process can't go on, as the others' ends tell it."""
    ends = ranks.cut_short()
    for rank, how in ends.items():
        if how is None:
            return RankLostError(
                f"process {rank} of {ranks.size} ended without notice (killed, or out of memory); "
                "go on with resume=RUN_ID, or with fewer processes"
            )
    for rank, how in ends.items():
        if how != _INTERRUPTED:
            return RankFailedError(f"process {rank} of {ranks.size} ended with {how}")
    return Interrupted(f"process {min(ends)} of {ranks.size} was interrupted") if ends else None
