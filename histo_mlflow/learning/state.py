"""Everything that training needs to go on as if it had never stopped; knows nothing of files."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.learning.ranks import ALONE, Ranks
from histo_mlflow.models.checkpoint import DAMAGE


@dataclass(eq=False)
class TrainingState:
    """The live objects of a training and how far it is; what they hold after an epoch is a checkpoint.

    Attributes:
        network: Learns.
        average: Its moving average, or None.
        optimizer: With its moments.
        scheduler: Steps once per batch.
        generator: Draws order and augmentation; torch's global generators draw dropout and stochastic depth.
        epoch: The last finished one, 0 before the first.
        best_epoch: Of the lowest validation loss so far, 0 before the first.
        best_val_loss: In nats.
        best_weights: Of that epoch, on the CPU.
    """

    network: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    generator: torch.Generator
    epoch: int = 0
    best_epoch: int = 0
    best_val_loss: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the average where there is one."""
        return self.network if self.average is None else self.average.module

    def note_best(self, val_loss: float) -> bool:
        """Keep the judged weights if `val_loss` of this epoch is the lowest so far, and return whether it is."""
        if not val_loss < self.best_val_loss:
            return False
        self.best_epoch, self.best_val_loss = self.epoch, val_loss
        self.best_weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.judged.state_dict().items()}
        return True

    def capture(self, ranks: Ranks) -> dict[str, Any]:
        """Return all of it as tensors and plain values, the random states of every process included; all must call it."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "random_states": ranks.gather(_random_states()),
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_val_loss": self.best_val_loss,
            "best_weights": self.best_weights,
        }

    def restore(self, content: Mapping[str, Any], ranks: Ranks) -> None:
        """Take over what `capture` has returned, here or elsewhere.

        Raises:
            RequestError: It was captured by another number of processes, or is damaged; nothing is taken over then.
        """
        if len(content["random_states"]) != ranks.size:
            raise RequestError(
                f"resume: the run was trained by {len(content['random_states'])} process(es), not by {ranks.size}; "
                f"give processes={len(content['random_states'])}"
            )
        before = copy.deepcopy(self.capture(ALONE))
        try:
            self._take(content, content["random_states"][ranks.rank])
        except DAMAGE as error:
            self._take(before, before["random_states"][0])  # half of it would be worse than none
            reason = str(error).partition("\n")[0][:300]
            raise TileFormatError(
                f"resume: the kept state does not fit this training ({reason}); start a new run from the last weights: "
                "weights=runs:/RUN_ID/checkpoints/epoch_NNN.safetensors"
            ) from None

    def _take(self, content: Mapping[str, Any], random_states: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(content["network"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        _check_moments(self.optimizer)
        self.scheduler.load_state_dict(content["scheduler"])
        self.generator.set_state(content["generator"])
        self.epoch, self.best_epoch = int(content["epoch"]), int(content["best_epoch"])
        self.best_val_loss, self.best_weights = float(content["best_val_loss"]), dict(content["best_weights"])
        expected = {name: tensor.shape for name, tensor in self.judged.state_dict().items()}
        if self.best_weights and {name: tensor.shape for name, tensor in self.best_weights.items()} != expected:
            raise ValueError("the best weights are not those of this network")
        for source, state in random_states.items():
            if source == "cpu":
                torch.set_rng_state(state)
            elif torch.cuda.is_available():
                torch.cuda.set_rng_state(state)


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raise `ValueError` where moments are not of their weights' shapes, of which torch says nothing before the first step."""
    for weights, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.ndim and moment.shape != weights.shape:
                raise ValueError(f"{name} of the optimizer has shape {tuple(moment.shape)}, not {tuple(weights.shape)}")


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states
