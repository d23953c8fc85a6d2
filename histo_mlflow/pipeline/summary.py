"""What a version keeps of its training: the space of tiles that it learnt from, and how tiles that it did not score in it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer
from histo_mlflow.learning.options import HEAD
from histo_mlflow.models.classifier import TileClassifier, with_temperature
from histo_mlflow.models.revealed import reveal
from histo_mlflow.models.training_summary import HeldOut, Seen, Space, TrainingSummary, find_space, summarise
from histo_mlflow.pipeline.features import stored_features
from histo_mlflow.pipeline.record import RecordedSplit, read_best_network
from histo_mlflow.pipeline.session import Session
from histo_mlflow.tiles.tile_set import Part

# The sums of more tell no more; networks that learn whole look at these tiles once more.
_MAX_TRAINING_TILES, _MAX_HELD_OUT_TILES = 1000, 2000
_MIN_TRAINING_TILES = 2


def summarise_training(
    session: Session, recorded: RecordedSplit, folds: Sequence[RecordedSplit] = ()
) -> TrainingSummary | None:
    """Return the summary of the network of `recorded`, or None where it learnt from too few tiles.

    Its own validation tiles say how tiles that it has not learnt from score: training tiles would look too familiar. Where
    groups are known, those of all `folds` are taken, each scored by the fold that has not learnt from it: one fold holds out
    a few patients only.
    """
    if len(recorded.split.train) < _MIN_TRAINING_TILES or not len(recorded.split.val):
        return None
    space, own = _look(session, recorded)
    held_out = [own]
    if own.groups is not None:
        held_out += [_look(session, each)[1] for each in folds if each.run.id != recorded.run.id]
    return summarise(space, held_out, len(recorded.split.tiles.classes))


def _look(session: Session, recorded: RecordedSplit) -> tuple[Space, HeldOut]:
    """Return the space of a split's training tiles, and its validation tiles in it."""
    best, split = recorded.best.compute, recorded.split
    network = with_temperature(read_best_network(recorded.run), recorded.facts.divisor).to(best.device).eval()
    is_kept = session.options.recipe.fit.trainable == HEAD and not best.is_bf16
    training, held_out = (
        _see(network, part, _some_of(part, at_most), best.in_fp32(), is_kept=is_kept)
        for part, at_most in ((split.train, _MAX_TRAINING_TILES), (split.val, _MAX_HELD_OUT_TILES))
    )
    assert training.features is not None
    space = find_space(training.features)
    rows = _some_of(split.val, _MAX_HELD_OUT_TILES)
    groups = None if split.tiles.groups is None else split.tiles.groups[rows]
    return space, HeldOut(space.scores_of(held_out), held_out.called, groups)


def _see(network: TileClassifier, part: Part, rows: NDArray[np.int64], compute: Compute, *, is_kept: bool) -> Seen:
    """Return what a network makes of some tiles; where features are kept, only its head is asked."""
    if is_kept:
        features = np.asarray(stored_features(network, part.tiles, compute)[rows], dtype=np.float32)
        weight, bias = (each.detach().cpu().double().numpy() for each in (network.head.weight, network.head.bias))
        logits = (features @ weight.T + bias) / float(network.temperature)
        return Seen(logits.astype(np.float32), features)
    revealed = reveal(network)
    assert revealed is not None
    both = infer(revealed, part.tiles.images, rows=rows, compute=compute, description="summarise training")
    return Seen(both[:, : network.n_classes], both[:, network.n_classes :])


def _some_of(part: Part, at_most: int) -> NDArray[np.int64]:
    """Return the positions of at most so many tiles, in order, the same ones each time."""
    if len(part) <= at_most:
        return part.rows
    return np.sort(np.random.default_rng(0).choice(part.rows, at_most, replace=False))
