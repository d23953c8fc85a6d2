"""How weights are improved: loss, optimiser, schedule, averaging; each option's reason is in docs/augmentation.md."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from histo_mlflow.learning.layers import depths_of
from histo_mlflow.learning.options import FitOptions

WARM_UP_SHARE = 0.1  # of all steps of a phase


class Objective:
    """The training loss: cross-entropy in nats, with the options' class weights and label smoothing."""

    def __init__(self, options: FitOptions, labels: NDArray[np.int64], *, n_classes: int, device: torch.device) -> None:
        self._smoothing = options.label_smoothing
        self._weights: Tensor | None = None
        if options.class_weights == "balanced":
            weights = class_weights(options, labels, n_classes=n_classes)
            self._weights = torch.tensor(weights, dtype=torch.float32, device=device)

    def __call__(self, logits: Tensor, labels: Tensor, batch_labels: Tensor) -> Tensor:
        """Return the loss of some tiles as their part of the mean over the whole batch, whose labels are `batch_labels`."""
        total = functional.cross_entropy(logits, labels, weight=self._weights, label_smoothing=self._smoothing, reduction="sum")
        return total / (len(batch_labels) if self._weights is None else self._weights[batch_labels].sum())


def class_weights(options: FitOptions, labels: NDArray[np.int64], *, n_classes: int) -> NDArray[np.float64]:
    """Return how much a tile of each class counts ``(n_classes,)``; 0 where there are none of it and classes are balanced."""
    if options.class_weights == "none":
        return np.ones(n_classes)
    counts = np.bincount(labels, minlength=n_classes)
    # scikit-learn's "balanced": n_tiles / (n_classes * count), here over the classes that are present.
    return np.where(counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)


def make_optimizer(network: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    """Return fused AdamW (Loshchilov and Hutter 2019); its groups of parameters begin with the head's.

    The rate falls from the head to the stem by `layer_decay` for each step of depth (Clark et al. 2020, ELECTRA, appendix A;
    Bao et al. 2022, BEiT): early layers hold what is general and need to change least.
    """
    layers = [(0.0, list(network.parameters()))]
    if options.layer_decay < 1:
        layers = depths_of(network, network.head)  # type: ignore[arg-type]
    groups: list[dict[str, Any]] = []
    for depth, layer in layers:
        rate = options.learning_rate * options.layer_decay**depth
        learning = [parameter for parameter in layer if parameter.requires_grad]
        # Decay pulls weights to 0, which means nothing for the scales of norms and for biases, the parameters of one dimension.
        groups.append({"params": [p for p in learning if p.ndim > 1], "weight_decay": options.weight_decay, "lr": rate})
        groups.append({"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0, "lr": rate})
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=options.learning_rate, fused=True)


def make_scheduler(optimizer: torch.optim.Optimizer, n_steps: Sequence[int]) -> LRScheduler:
    """Return for each phase, of so many steps, a linear warm-up over its first tenth, then a cosine to 0.

    Goyal et al. 2017; Loshchilov and Hutter 2017.
    """

    def factor(step: int) -> float:
        for n in n_steps[:-1]:
            if step < n:
                return _factor_in_phase(step, n)
            step -= n
        return _factor_in_phase(step, n_steps[-1])

    return LambdaLR(optimizer, factor)


def _factor_in_phase(step: int, n_steps: int) -> float:
    n_warm_up = max(1, round(WARM_UP_SHARE * n_steps))
    if step < n_warm_up:
        return (step + 1) / n_warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm_up) / max(1, n_steps - n_warm_up)))


def make_average(network: nn.Module, options: FitOptions) -> AveragedModel | None:
    """Return a moving average of the weights, or None if the options want none.

    Statistics of batch norm are not averaged: those of the averaged weights are no average of those of the weights.
    """
    if options.ema_decay == 0:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay))  # type: ignore[no-untyped-call]
