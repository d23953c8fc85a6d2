"""What a model keeps of its training, so that tiles which come later can be compared with it: two scores, a few sums of them.

Knows no network: it scores logits and features that others have made. What it is compared by is `evaluation/drift.py`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

Floats = NDArray[np.float64]

STRANGENESS, CONFIDENCE = "strangeness", "confidence"
SCORES = (STRANGENESS, CONFIDENCE)
"""In the order of all arrays here."""

SUMMARY_FILE = "training_summary.safetensors"
MAX_SUMMARY_BYTES = 2**21
_KEY = "histo_mlflow"
_N_DIRECTIONS = 32  # docs/drift.md: with 16 and 64 it tells as much
_TILES_PER_DIRECTION = 8
_MAX_UNITS = 1000
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network made of some tiles in one pass.

    Attributes:
        logits: ``(n_tiles, n_classes)``.
        features: ``(n_tiles, n_features)``, what its head saw; None where a runtime gives only logits.
    """

    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def called(self) -> NDArray[np.int64]:
        """``(n_tiles,)``: the class of the highest logit."""
        called: NDArray[np.int64] = self.logits.argmax(axis=1)
        return called


@dataclass(frozen=True, eq=False)
class Space:
    """Where the features of training tiles lie: a centre, and the directions in which they vary most.

    Attributes:
        centre: ``(n_features,)`` float32.
        directions: ``(n_features, n_directions)`` float16, orthonormal to rounding.
        spread: Mean squared distance of the training tiles from the centre.
    """

    centre: NDArray[np.float32]
    directions: NDArray[np.float16]
    spread: float

    def scores_of(self, seen: Seen) -> Floats:
        """Return ``(n_scores, n_tiles)`` in the order of `SCORES`; NaN for the first where there are no features.

        Strangeness: the logarithm of how much of a tile's features lies off those directions, in units of `spread`. It is the
        squared prediction error of Jackson and Mudholkar 1979 ("Control procedures for residuals associated with principal
        component analysis"), which Wang et al. 2022 ("ViM: out-of-distribution with virtual-logit matching") found in features
        of networks. Confidence: the log odds of the class that is called.
        """
        logits = seen.logits.astype(np.float64)
        order = np.sort(logits, axis=1)
        others = order[:, :-1]
        confidence = order[:, -1] - others[:, -1] - np.log(np.exp(others - others[:, -1:]).sum(axis=1))
        strangeness = np.full(len(seen), np.nan)
        if seen.features is not None:
            away = seen.features.astype(np.float64) - self.centre
            along = away @ self.directions.astype(np.float64)
            off = (away**2).sum(axis=1) - (along**2).sum(axis=1)
            strangeness = np.log(np.maximum(off / self.spread, _LEAST))
        return np.stack([strangeness, confidence])


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums of the scores of some tiles.

    Attributes:
        counts: ``(n_classes,)``, tiles called so.
        sums: ``(n_scores, n_classes)`` of the scores of these tiles.
    """

    counts: Floats
    sums: Floats

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.counts + other.counts, self.sums + other.sums)

    @classmethod
    def of(cls, scores: Floats, called: NDArray[np.int64], n_classes: int) -> "Tally":
        """Return the sums of ``(n_scores, n_tiles)`` of tiles that are called ``(n_tiles,)``."""
        counts = np.bincount(called, minlength=n_classes).astype(np.float64)
        return cls(counts, np.stack([np.bincount(called, weights=each, minlength=n_classes) for each in scores]))


@dataclass(frozen=True, eq=False)
class TrainingSummary:
    """The space of a model's training tiles, and how tiles that it has not learnt from score there.

    Attributes:
        space: Of the training tiles.
        counts: ``(n_units, n_classes)`` float32: held-out tiles of each group (patient, slide) that are called so; of all
            together, one unit, where no groups are known.
        sums: ``(n_scores, n_units, n_classes)`` float32 of their scores.
        variances: ``(n_scores,)`` float32 of a tile's score around the mean of its class.
        is_grouped: Whether groups are known.
    """

    space: Space
    counts: NDArray[np.float32]
    sums: NDArray[np.float32]
    variances: NDArray[np.float32]
    is_grouped: bool

    @property
    def n_classes(self) -> int:
        """Number of classes of the model."""
        return int(self.counts.shape[1])

    def to_bytes(self) -> bytes:
        """Return the summary as safetensors, which hold no code."""
        space = self.space
        tensors = {
            "centre": space.centre,
            "directions": space.directions,
            "spread": np.array([space.spread], dtype=np.float64),
            "counts": self.counts,
            "sums": self.sums,
            "variances": self.variances,
        }
        header = {"scores": list(SCORES), "is_grouped": self.is_grouped}
        content: bytes = save(
            {name: np.ascontiguousarray(each) for name, each in tensors.items()}, metadata={_KEY: json.dumps(header)}
        )
        return content


def summary_from(content: bytes) -> TrainingSummary:
    """Return what `to_bytes` wrote; raises `ValueError` for whatever else it is."""
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_KEY])
        tensors: dict[str, NDArray[Any]] = load(content)
        space = Space(tensors["centre"], tensors["directions"], float(tensors["spread"][0]))
        summary = TrainingSummary(
            space, tensors["counts"], tensors["sums"], tensors["variances"], is_grouped=header["is_grouped"] is True
        )
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"it is not a summary of a training ({type(error).__name__})") from None
    if header["scores"] != list(SCORES) or not _fits_together(summary):
        raise ValueError("its parts do not fit together")
    return summary


def _fits_together(summary: TrainingSummary) -> bool:
    space, counts = summary.space, summary.counts
    arrays = (space.centre, space.directions, counts, summary.sums, summary.variances)
    return (
        [each.ndim for each in arrays] == [1, 2, 2, 3, 1]
        and len(space.directions) == len(space.centre)
        and summary.sums.shape == (len(SCORES), *counts.shape)
        and summary.variances.shape == (len(SCORES),)
        and bool(np.isfinite(space.spread) and space.spread > 0 and (counts >= 0).all())
        and all(bool(np.isfinite(each).all()) for each in arrays)
    )


def find_space(features: NDArray[np.float32]) -> Space:
    """Return the space of the features of training tiles ``(n_tiles, n_features)``, at least two of each."""
    centre = features.mean(axis=0, dtype=np.float64)
    away = features.astype(np.float64) - centre
    n_directions = max(1, min(_N_DIRECTIONS, len(away) // _TILES_PER_DIRECTION, away.shape[1] // 2))
    directions = np.linalg.svd(away, full_matrices=False)[2][:n_directions].T
    spread = max(float((away**2).sum(axis=1).mean()), _LEAST)
    return Space(centre.astype(np.float32), directions.astype(np.float16), spread)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Tiles that a network has not learnt from, scored in the space of those that it has.

    Attributes:
        scores: ``(n_scores, n_tiles)``.
        called: ``(n_tiles,)``.
        groups: ``(n_tiles,)`` patient or slide of each, or None.
    """

    scores: Floats
    called: NDArray[np.int64]
    groups: NDArray[np.str_] | None


def summarise(space: Space, held_out: Sequence[HeldOut], n_classes: int) -> TrainingSummary:
    """Return the summary of a model with that space, by tiles that it, or the networks of other folds, have not learnt from."""
    scores = np.concatenate([each.scores for each in held_out], axis=1)
    called = np.concatenate([each.called for each in held_out])
    groups = [each.groups for each in held_out if each.groups is not None]
    is_grouped = len(groups) == len(held_out)
    units = np.concatenate(groups) if is_grouped else np.zeros(len(called), dtype="<U1")
    names = np.unique(units)
    if len(names) > _MAX_UNITS:
        names = np.random.default_rng(0).permutation(names)[:_MAX_UNITS]
    tallies = [Tally.of(scores[:, units == name], called[units == name], n_classes) for name in names]
    total = Tally.of(scores, called, n_classes)
    means = total.sums / np.maximum(total.counts, 1)
    variances = ((scores - means[:, called]) ** 2).sum(axis=1) / max(1, len(called) - n_classes)
    return TrainingSummary(
        space,
        np.stack([each.counts for each in tallies]).astype(np.float32),
        np.stack([each.sums for each in tallies], axis=1).astype(np.float32),
        np.maximum(variances, _LEAST).astype(np.float32),
        is_grouped=is_grouped,
    )
