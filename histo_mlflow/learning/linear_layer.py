"""A linear layer that learns from features in batches, however many there are; knows nothing of networks or validation."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from histo_mlflow.base.progress import Bar
from histo_mlflow.learning.batches import batch_rows
from histo_mlflow.learning.logistic import Floats, Head, check_numbers, divisors
from histo_mlflow.learning.optimiser import Objective, make_optimizer, make_scheduler
from histo_mlflow.learning.options import Recipe
from histo_mlflow.tiles.tile_set import Part

_BLOCK_ROWS = 8192


def learn_layer(
    views: Sequence[NDArray[np.float32]], train: Part, recipe: Recipe, device: torch.device
) -> Iterator[tuple[float, Head]]:
    """Yield after each epoch the learning rate at its start and the head as it is then.

    AdamW, schedule, batch size and class weights are those of `recipe`, as for a whole network; each time that a tile is seen
    one of its `views` is drawn. Features are standardised as for a logistic regression.
    """
    options, n_classes = recipe.fit, len(train.tiles.classes)
    mean, deviation = _mean_and_deviation(views, train.rows)
    centre, scale = (torch.from_numpy(each).float().to(device) for each in (mean, 1 / deviation))
    layer = nn.Linear(len(mean), n_classes, device=device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    generator = np.random.default_rng(recipe.seed.seed)
    optimizer, n_steps = make_optimizer(layer, options), len(batch_rows(train.rows, options.batch_size))
    scheduler = make_scheduler(optimizer, [n_steps * options.epochs])
    objective = Objective(options, train.labels, n_classes=n_classes, device=device)
    for epoch in range(1, options.epochs + 1):
        rate = float(scheduler.get_last_lr()[0])
        batches = batch_rows(generator.permutation(train.rows), options.batch_size)
        for rows in Bar(batches, desc=f"head, epoch {epoch}/{options.epochs}"):
            drawn = generator.integers(len(views), size=len(rows))
            features = np.empty((len(rows), len(mean)), np.float32)
            for k, view in enumerate(views):
                features[drawn == k] = view[rows[drawn == k]]
            labels = torch.from_numpy(train.tiles.labels[rows]).to(device)
            loss = objective(layer((torch.from_numpy(features).to(device) - centre) * scale), labels, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
        learnt = Head.of(layer)
        weights = learnt.weights / deviation
        yield rate, Head(weights, learnt.bias - weights @ mean)


def _mean_and_deviation(views: Sequence[NDArray[np.float32]], rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return mean and standard deviation ``(n_features,)`` of all views at `rows`, as `divisors` has them."""
    sums, squares = np.zeros((2, views[0].shape[1]))
    shift = views[0][rows[0]].astype(np.float64)  # squares of what is far from 0 would lose digits
    for view in views:
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = view[rows[start : start + _BLOCK_ROWS]] - shift
            sums += block.sum(axis=0)
            squares += (block**2).sum(axis=0)
    mean = check_numbers(sums / (len(views) * len(rows)))
    deviation = np.sqrt(np.maximum(squares / (len(views) * len(rows)) - mean**2, 0))
    return mean + shift, divisors(mean + shift, deviation)
