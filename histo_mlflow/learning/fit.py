"""The training loop; knows nothing of files, runs or figures of merit, which are its observer's business."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from histo_mlflow.errors import NonFiniteLossError, OptionError
from histo_mlflow.learning.augmentation import AugmentationOptions, augment, schedule
from histo_mlflow.learning.batches import LabelledTiles, batch_rows, load_batches
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import cross_entropy_of, infer

WEIGHT_DECAY = 0.05
WARM_UP_SHARE = 0.1  # of all steps


@dataclass(frozen=True)
class FitOptions:
    """How long and how fast the network learns."""

    epochs: int = field(default=20, metadata={"help": "How often every training tile is seen."})
    learning_rate: float = field(
        default=1e-3, metadata={"help": "Peak of the learning rate (AdamW, linear warm-up, then cosine to 0)."}
    )
    batch_size: int = field(default=32, metadata={"help": "Tiles per step, at least 2."})

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise OptionError(f"epochs={self.epochs}: at least 1 is needed")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise OptionError(f"learning_rate={self.learning_rate}: must be a positive number, for instance 1e-3")
        if self.batch_size < 2:
            raise OptionError(f"batch_size={self.batch_size}: at least 2 is needed, for batch norm compares tiles")


@dataclass(frozen=True, eq=False)
class Scored:
    """Logits of one labelled set: ``(n_tiles, n_classes)``, with labels ``(n_tiles,)`` and the loss in nats."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    loss: float


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The live objects of a run after an epoch; a checkpoint holds what they hold."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    epoch: int
    best_epoch: int
    best_val_loss: float


@dataclass(frozen=True, eq=False)
class EpochReport:
    """What the observer is told after each epoch, counted from 1; `train_*` are means over all tiles while learning."""

    epoch: int
    epochs: int
    train_loss: float
    train_accuracy: float
    val: Scored
    test: Scored | None
    learning_rate: float
    tiles_per_second: float
    is_best: bool
    state: TrainingState


@dataclass(frozen=True)
class FitResult:
    """Which epoch was chosen; the network then holds its weights."""

    best_epoch: int
    best_val_loss: float


def fit(
    network: nn.Module,
    train: LabelledTiles,
    val: LabelledTiles,
    *,
    test: LabelledTiles | None = None,
    options: FitOptions,
    augmentation: AugmentationOptions,
    compute: Compute,
    seed: int,
    on_epoch: Callable[[EpochReport], None],
) -> FitResult:
    """Train `network` in place and leave it with the weights of the lowest validation loss, in evaluation mode.

    `test` is scored after every epoch for the observer's eyes and decides nothing. Whatever `on_epoch` raises ends the
    training, which is how a search prunes it.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite; says in which epoch and step.
    """
    network.to(compute.device).to(memory_format=torch.channels_last)
    n_steps = len(batch_rows(train.rows, options.batch_size))
    optimizer = _make_optimizer(network, options)
    scheduler = _make_scheduler(optimizer, n_steps * options.epochs)
    generator = torch.Generator().manual_seed(seed)
    transforms = schedule(augmentation)
    best_epoch, best_val_loss, best_weights = 0, math.inf, {}
    for epoch in range(1, options.epochs + 1):
        started, learning_rate = time.perf_counter(), float(scheduler.get_last_lr()[0])
        order = train.rows[torch.randperm(len(train), generator=generator).numpy()]
        batches = batch_rows(order, options.batch_size)
        tiles_on_device = load_batches(train.images, batches, compute.device)
        bar = tqdm(tiles_on_device, total=n_steps, desc=f"epoch {epoch}/{options.epochs}", disable=None, leave=False)
        loss_sum, n_right = 0.0, 0
        network.train()
        for step, (rows, tiles) in enumerate(zip(batches, bar, strict=True), start=1):
            labels = torch.from_numpy(train.labels[rows]).to(compute.device)
            tiles = augment(tiles, epoch=epoch, transforms=transforms, generator=generator)
            with compute.autocast():
                logits = network(tiles).float()
            loss = functional.cross_entropy(logits, labels)
            _check_finite(loss.item(), f"epoch {epoch}, step {step} of {n_steps}", options)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            loss_sum += loss.item() * len(rows)
            n_right += int((logits.argmax(1) == labels).sum())
        tiles_per_second = len(train) / (time.perf_counter() - started)

        network.eval()
        val_scored = score(network, val, compute, "validate")
        is_best = val_scored.loss < best_val_loss
        if is_best:
            best_epoch, best_val_loss, best_weights = epoch, val_scored.loss, _copy_weights(network)
        report = EpochReport(
            epoch=epoch,
            epochs=options.epochs,
            train_loss=loss_sum / len(train),
            train_accuracy=n_right / len(train),
            val=val_scored,
            test=score(network, test, compute, "watch test") if test is not None else None,
            learning_rate=learning_rate,
            tiles_per_second=tiles_per_second,
            is_best=is_best,
            state=TrainingState(network, optimizer, scheduler, generator, epoch, best_epoch, best_val_loss),
        )
        on_epoch(report)
    if not best_weights:
        raise NonFiniteLossError("the validation loss was never finite; try a lower learning_rate")
    network.load_state_dict(best_weights)
    return FitResult(best_epoch, best_val_loss)


def _check_finite(loss: float, where: str, options: FitOptions) -> None:
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"the loss became {loss} in {where}; try a lower learning_rate than {options.learning_rate:g}, or precision=fp32"
        )


def score(network: nn.Module, tiles: LabelledTiles, compute: Compute, description: str = "score") -> Scored:
    """Return logits, labels and loss of `tiles`; `network` must be in evaluation mode."""
    logits = infer(network, tiles.images, rows=tiles.rows, compute=compute, description=description)
    labels = tiles.labels[tiles.rows]
    return Scored(logits, labels, cross_entropy_of(logits, labels))


def _make_optimizer(network: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    # Decay pulls weights to 0, which means nothing for the scales of norms and for biases, the parameters of one dimension.
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)


def _make_scheduler(optimizer: torch.optim.Optimizer, n_steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    n_warm_up = max(1, round(WARM_UP_SHARE * n_steps))

    def factor(step: int) -> float:
        if step < n_warm_up:
            return (step + 1) / n_warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - n_warm_up) / max(1, n_steps - n_warm_up)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _copy_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
