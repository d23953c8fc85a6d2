"""The training loop; knows nothing of files, runs or figures of merit, which are its observer's business."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from histo_mlflow.base.progress import Bar, in_time
from histo_mlflow.errors import NonFiniteLossError, OptionError
from histo_mlflow.learning.augmentation import change, transforms_in
from histo_mlflow.learning.batches import TileSource, batch_rows
from histo_mlflow.learning.compute import Compute, resolve_compute
from histo_mlflow.learning.infer import cross_entropy_of, infer
from histo_mlflow.learning.learner import Learner
from histo_mlflow.learning.norms import draw_batches, estimate_norms, learning_norms
from histo_mlflow.learning.optimiser import Objective, make_average, make_optimizer, make_scheduler
from histo_mlflow.learning.options import FitOptions, Recipe
from histo_mlflow.learning.pooling import use_fast_pooling
from histo_mlflow.learning.ranks import ALONE, Ranks, local_device
from histo_mlflow.learning.reports import EpochReport, FitResult, Scored
from histo_mlflow.learning.state import TrainingState
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import Part

# A look at the loss makes the host wait for a GPU, so there several steps are looked at together.
_STEPS_PER_CHECK_ON_GPU = 16


def fit(
    network: nn.Module,
    split: Split,
    recipe: Recipe,
    *,
    on_epoch: Callable[[EpochReport], None],
    ranks: Ranks = ALONE,
    resume: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train `network` in place and leave it with the weights of the lowest validation loss, in evaluation mode.

    The test tiles of `split` are scored after every epoch for the observer's eyes and decide nothing. Whatever `on_epoch`
    raises ends the training, which is how a search prunes it. With several `ranks` each calls this with the same arguments,
    learns from its share of every batch, and is told the same. `resume` is the state of an earlier report: training goes on
    after its epoch, and on a CPU ends with the same weights to the last bit as if it had never stopped.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite; says in which epoch and step.
    """
    lesson = _prepare(network, split.train, recipe, ranks)
    state, compute, epochs, patience = lesson.state, lesson.compute, recipe.fit.epochs, recipe.fit.patience or math.inf
    if resume is not None:
        state.restore(resume, ranks)
    begun_s, begun_epoch, seconds_left = time.perf_counter(), state.epoch, None
    while state.epoch < epochs and state.epoch - max(state.best_epoch, recipe.fit.epochs_of_head_alone) < patience:
        started, learning_rate = time.perf_counter(), float(state.scheduler.get_last_lr()[0])
        train_loss, train_accuracy = _learn_epoch(lesson, split.train, recipe, seconds_left)
        tiles_per_second = len(split.train) / (time.perf_counter() - started)

        norms = learning_norms(network)
        state.epoch += 1
        state.judged.eval()
        sample = draw_batches(split.train, recipe, epoch=state.epoch)
        estimate_norms(state.judged, norms, lesson.source, sample, compute, ranks)
        val = score(state.judged, split.val, compute, "validate", ranks)
        is_best = state.note_best(val.loss)
        test = score(state.judged, split.test, compute, "watch test", ranks) if split.test is not None else None
        seconds = time.perf_counter() - begun_s
        seconds_left = seconds / (state.epoch - begun_epoch) * (epochs - state.epoch)
        report = EpochReport(
            epoch=state.epoch,
            epochs=epochs,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val=val,
            test=test,
            learning_rate=learning_rate,
            tiles_per_second=tiles_per_second,
            is_best=is_best,
            network=state.judged,
            state=state.capture(ranks),
            seconds_left=seconds_left,
            seconds_so_far=seconds,
        )
        on_epoch(report)
    if not state.best_weights:
        raise NonFiniteLossError("the validation loss was never finite; try a lower learning_rate")
    network.load_state_dict(state.best_weights)
    network.eval()
    return FitResult(state.best_epoch, state.best_val_loss, compute)


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What every epoch needs: the network as a step calls it, what improves it, and where its tiles come from."""

    network: nn.Module
    learner: Learner
    state: TrainingState
    objective: Objective
    source: TileSource
    compute: Compute
    ranks: Ranks
    smallest_batch: int


def _prepare(network: nn.Module, train: Part, recipe: Recipe, ranks: Ranks) -> _Lesson:
    options, seed = recipe.fit, recipe.seed.seed
    compute = resolve_compute(recipe.compute, tile_size_px=recipe.network.image_size or train.tiles.tile_size_px)
    compute = Compute(local_device(compute.device), compute.is_bf16)
    network.to(compute.device).to(memory_format=torch.channels_last)
    if compute.device.type == "cpu":
        use_fast_pooling(network)
    smallest = 2 * ranks.size  # each process needs two tiles for batch norm
    if options.batch_size < smallest:
        raise OptionError(f"batch_size={options.batch_size}: {ranks.size} processes need at least {smallest}")
    optimizer, n_steps = make_optimizer(network, options), len(batch_rows(train.rows, options.batch_size, smallest=smallest))
    scheduler = make_scheduler(optimizer, [n_steps * epochs for epochs in options.phases])
    state = TrainingState(network, make_average(network, options), optimizer, scheduler, torch.Generator().manual_seed(seed))
    if ranks.size > 1:
        torch.manual_seed(seed + ranks.rank)  # of dropout: each process has tiles of its own
        if compute.device.type == "cuda":  # torch has no synchronised batch norm for CPUs
            # torch's own would lose the activations in timm's norms.
            from timm.layers.norm_act import convert_sync_batchnorm

            convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    learner = Learner(network, options, ranks, is_compiled=recipe.engine.compile)
    n_classes = int(getattr(network, "n_classes", train.labels.max() + 1))
    objective = Objective(options, train.labels, n_classes=n_classes, device=compute.device)
    source = TileSource(train.tiles.images, compute.device, resident_rows=train.rows)
    return _Lesson(network, learner, state, objective, source, compute, ranks, smallest)


def _learn_epoch(lesson: _Lesson, train: Part, recipe: Recipe, seconds_left: float | None) -> tuple[float, float]:
    """Take a step for each batch of the next epoch; return loss and accuracy over all tiles of all processes.

    `seconds_left` for it and all epochs after it are shown beside the bar, if they can be known.
    """
    state, compute, ranks, options = lesson.state, lesson.compute, lesson.ranks, recipe.fit
    epoch = state.epoch + 1
    transforms = transforms_in(epoch, recipe.augmentation)
    order = train.rows[torch.randperm(len(train), generator=state.generator).numpy()]
    batches = batch_rows(order, options.batch_size, smallest=lesson.smallest_batch)
    shares = [rows[ranks.share(len(rows))] for rows in batches]
    whole = "" if seconds_left is None else f" ({in_time(seconds_left)} left in all)"
    bar = Bar(
        zip(batches, lesson.source.load(shares), strict=True), total=len(batches),
        desc=f"epoch {epoch}/{options.epochs}{whole}", disable=not ranks.is_first,
    )  # fmt: skip
    tally = _Tally(f"in epoch {epoch}, step {{}} of {len(batches)}", compute.device, options)
    learner = lesson.learner.begin(epoch)
    for rows, tiles in bar:
        share = ranks.share(len(rows))
        batch_labels = torch.from_numpy(train.tiles.labels[rows]).to(compute.device, non_blocking=True)
        labels = batch_labels[share]
        tiles = change(tiles, transforms, state.generator, n_drawn=len(rows), share=share)
        with compute.learning():
            logits = learner(tiles).float()
        loss = lesson.objective(logits, labels, batch_labels) * ranks.size  # DDP takes the mean of the processes' gradients
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if options.clip_norm > 0:
            nn.utils.clip_grad_norm_(lesson.network.parameters(), options.clip_norm)
        tally.add(logits.detach(), labels, loss.detach())
        state.optimizer.step()
        state.scheduler.step()
        if state.average is not None:
            state.average.update_parameters(lesson.network)
    return tally.mean_over(ranks)


class _Tally:
    """Sums of loss and right answers over an epoch, and the watch that the loss stays finite."""

    def __init__(self, where: str, device: torch.device, options: FitOptions) -> None:
        self._where, self._options = where, options
        self._steps_per_check = _STEPS_PER_CHECK_ON_GPU if device.type == "cuda" else 1
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, right answers, tiles
        self._unchecked: list[Tensor] = []
        self._n_checked = 0

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Take in one step."""
        total = functional.cross_entropy(logits, labels, reduction="sum")
        self._sums += torch.stack([total, (logits.argmax(1) == labels).sum(), torch.ones_like(total) * len(labels)])
        self._unchecked.append(loss)
        if len(self._unchecked) == self._steps_per_check:
            self._check()

    def mean_over(self, ranks: Ranks) -> tuple[float, float]:
        """Return loss and accuracy over all tiles of all processes."""
        self._check()
        loss, n_right, n_tiles = np.sum(ranks.gather(self._sums.tolist()), axis=0).tolist()
        return loss / n_tiles, n_right / n_tiles

    def _check(self) -> None:
        for step, loss in enumerate(torch.stack(self._unchecked).tolist() if self._unchecked else [], self._n_checked + 1):
            if not math.isfinite(loss):
                where, rate = self._where.format(step), self._options.learning_rate
                raise NonFiniteLossError(
                    f"the loss became {loss} {where}; try a lower learning_rate than {rate:g}, or precision=fp32"
                )
        self._n_checked += len(self._unchecked)
        self._unchecked.clear()


def score(network: nn.Module, part: Part, compute: Compute, description: str = "score", ranks: Ranks = ALONE) -> Scored:
    """Return logits, labels and loss of `part`; `network` must be in evaluation mode. Several `ranks` share the work."""
    mine = part.rows[ranks.share(len(part))]
    shown = description if ranks.is_first else None
    logits = infer(network, part.tiles.images, rows=mine, compute=compute, description=shown)
    labels = part.labels
    pooled = np.concatenate(ranks.gather(logits))
    return Scored(pooled, labels, cross_entropy_of(pooled, labels))
