"""How classes and groups differ in colour, which a network learns before it learns tissue."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.finding import NOTE, Check, Finding, Measures, Table
from histo_mlflow.auditing.subject import Subject
from histo_mlflow.evaluation.baselines import HISTOGRAM, MEAN_COLOUR, colour_features

_MOST_GROUPS = 20


def _measure(tiles: NDArray[np.uint8]) -> Measures:
    found = colour_features(tiles, np.arange(len(tiles)))
    return {name: found[name].astype(np.float32) for name in (MEAN_COLOUR, HISTOGRAM)}


def _find(subject: Subject) -> Iterator[Finding]:
    of_class = np.array([f"{subject.classes[label]}" for label in subject.labels])
    where = np.where(subject.is_test, " (test)", "")
    yield _by(subject, np.char.add(of_class, where), "class")
    if subject.groups is not None:
        groups = subject.groups
        commonest = [
            str(name) for name, _ in sorted(zip(*np.unique(groups, return_counts=True), strict=True), key=lambda g: -g[1])
        ]
        is_shown = np.isin(groups, commonest[:_MOST_GROUPS])
        yield _by(subject, np.where(is_shown, groups, "all others"), "group")


def _by(subject: Subject, names: NDArray[np.str_], unit: str) -> Finding:
    """Return mean and deviation of colour by class or group, and which share of all variance lies between them."""
    colours = subject.measures[MEAN_COLOUR][: len(names)].astype(np.float64)
    known, number = np.unique(names, return_inverse=True)
    counts = np.bincount(number)
    means = np.stack([np.bincount(number, colours[:, k]) / counts for k in range(3)], axis=1)
    total = ((colours - colours.mean(axis=0)) ** 2).sum()
    between = (counts[:, None] * (means - colours.mean(axis=0)) ** 2).sum()
    share = float(between / total) if total else 0.0
    rows = []
    for name, n, mean, own in zip(known, counts, means, range(len(known)), strict=True):
        deviation = colours[number == own].std(axis=0)
        rows.append((str(name), f"{n}", *(f"{m:.0f} ± {d:.0f}" for m, d in zip(mean, deviation, strict=True))))
    return Finding(
        f"colour_by_{unit}", f"Colour by {unit}", NOTE,
        f"{100 * share:.0f} % of the variance of mean colour lies between {'classes' if unit == 'class' else 'groups'}.",
        "What colour alone predicts stands under shortcuts; colour augmentation and stain normalisation act against it.",
        table=Table((unit, "tiles", "red", "green", "blue"), tuple(rows)), figures={"variance_between": share},
    )  # fmt: skip


CHECK = Check("colour", _find, _measure)
