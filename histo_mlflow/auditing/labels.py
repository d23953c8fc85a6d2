"""Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang 2021, "Confident learning").

What is said of each tile comes from others: from the folds of a run, or from a logistic regression and nearest neighbours over
features. How many errors this finds, and how many of those it names are none, is measured on labels changed on purpose.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.finding import CLEAR, DOUBTFUL, NOTE, UNASKED, Check, Finding, Strip, Table
from histo_mlflow.auditing.neighbours import nearest, whiten
from histo_mlflow.auditing.subject import Rows, Subject
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.slides.doubts import Doubt

FLIPPED_SHARE = 0.01
"""Of labels that are changed on purpose. Where few are wrong, what is named for nothing weighs most: a cut that is precise
there is so where more are wrong."""

WANTED_PRECISION = 0.9
_PLANTED, _MOST_DRAWS = 100, 6  # draws are added until so many labels were changed: a dozen alone would say little
_CUTS = (-0.2, -0.25, -0.3, -0.35, -0.4, -0.45, -0.5, -0.6, -0.7)
_TRUSTED = -0.3
_FOLDS, _ROUNDS, _SHUFFLES = 5, 3, 3
_NEIGHBOURS = 15
_TEMPERATURE = 0.05  # of the weights of neighbours: a similarity smaller by so much counts less by e
_WEIGHT_OF_NEIGHBOURS = 0.3  # the rest is the regression's
_COST_PER_TILE = 1e-3  # C over the number of tiles, which are of length 1: little, or it would learn the errors
_STRIPS, _SHOWN_NEIGHBOURS = 12, 5
_TINY = 1e-4


@dataclass(frozen=True, eq=False)
class Issues:
    """Labels in doubt.

    Attributes:
        rows: ``(n,)``, positions of the tiles, the most doubtful first.
        margin: ``(n_tiles,)``, probability of the label less that of the likeliest other class.
    """

    rows: Rows
    margin: Floats


@dataclass(frozen=True, eq=False)
class Draw:
    """Labels changed on purpose, and what others say then.

    Attributes:
        margin: ``(n_tiles,)``, as in `Issues`, of the changed labels.
        planted: ``(n,)``, positions of those that were changed.
    """

    margin: Floats
    planted: Rows


@dataclass(frozen=True)
class Trial:
    """What was found of labels that were changed on purpose.

    Attributes:
        precision: Share of changed ones among labels that are in doubt and were not before.
        recall: Share of the changed ones that are in doubt.
    """

    precision: float
    recall: float


def margins(labels: Rows, said: Floats) -> Floats:
    """Return, ``(n_tiles,)``, the probability of each label less that of the likeliest other class, from -1 to 1."""
    from cleanlab.rank import get_normalized_margin_for_each_label

    return np.asarray(2 * get_normalized_margin_for_each_label(labels, said) - 1)


def find_issues(labels: Rows, said: Floats, cut: float) -> Issues:
    """Return the labels ``(n_tiles,)`` whose margin by probabilities of others ``(n_tiles, n_classes)`` is below `cut`."""
    margin = margins(labels, said)
    rows = np.flatnonzero(margin < cut)
    return Issues(rows[np.argsort(margin[rows], kind="stable")], margin)


def say_of_each(white: NDArray[np.float32], labels: Rows, seed: int) -> Floats:
    """Return what others say of each tile ``(n_tiles, n_classes)``: weighted geometric mean of a regression and of neighbours.

    In later rounds, tiles whose labels the one before doubts are not learnt from.
    """
    is_trusted = np.ones(len(labels), bool)
    for _ in range(_ROUNDS):
        parts = _regression(white, labels, is_trusted, seed), _neighbours(white, labels, is_trusted)
        said = parts[0] ** (1 - _WEIGHT_OF_NEIGHBOURS) * parts[1] ** _WEIGHT_OF_NEIGHBOURS
        said /= said.sum(axis=1, keepdims=True)
        is_trusted = margins(labels, said) > _TRUSTED
    return said


def _regression(white: NDArray[np.float32], labels: Rows, is_trusted: NDArray[np.bool_], seed: int) -> Floats:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    said = np.full((len(labels), labels.max() + 1), _TINY)
    for shuffle in range(_SHUFFLES):  # one draw of folds alone would put some labels in doubt by chance
        splitter = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed + shuffle)
        for train, held_out in splitter.split(white, labels):
            own = train[is_trusted[train]]
            model = LogisticRegression(C=_COST_PER_TILE * len(white), max_iter=200).fit(white[own], labels[own])
            said[np.ix_(held_out, model.classes_)] += model.predict_proba(white[held_out]) / _SHUFFLES
    return said


def _neighbours(white: NDArray[np.float32], labels: Rows, is_trusted: NDArray[np.bool_]) -> Floats:
    similar, found = nearest(white, _NEIGHBOURS)
    weights = np.exp((similar - similar[:, :1]) / _TEMPERATURE) * is_trusted[found]
    said = np.zeros((len(labels), labels.max() + 1))
    for k in range(found.shape[1]):
        said[np.arange(len(labels)), labels[found[:, k]]] += weights[:, k]
    return np.asarray((said + 1e-2) / (said + 1e-2).sum(axis=1, keepdims=True))


def flip(labels: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Return labels of which a share was changed to another class at random, and which."""
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(labels), max(1, round(share * len(labels))), replace=False)
    flipped, n_classes = labels.copy(), int(labels.max()) + 1
    flipped[rows] = (labels[rows] + generator.integers(1, n_classes, len(rows))) % n_classes
    return flipped, rows


def judge(draws: Sequence[Draw], before: Floats, cut: float) -> Trial:
    """Return what is found of planted errors, all draws together, compared with margins ``(n_tiles,)`` before.

    A label that is in doubt as it came is none of the planted errors, and may be an error all the same: it does not count.
    """
    n_found = n_hits = 0
    for draw in draws:
        is_planted = np.isin(np.arange(len(before)), draw.planted)
        is_found = (draw.margin < cut) & (is_planted | (before >= cut))
        n_found, n_hits = n_found + int(is_found.sum()), n_hits + int((is_found & is_planted).sum())
    return Trial(n_hits / max(n_found, 1), n_hits / max(sum(len(draw.planted) for draw in draws), 1))


def choose_cut(draws: Sequence[Draw], before: Floats) -> float:
    """Return the most lenient of the cuts that has the wanted precision on planted errors; if none has it, the strictest."""
    return next((cut for cut in _CUTS if judge(draws, before, cut).precision >= WANTED_PRECISION), _CUTS[-1])


def _find(subject: Subject) -> Iterator[Finding]:
    kind, title = "label_errors", "Labels in doubt"
    present, labels = np.unique(subject.labels[: len(subject.data)], return_inverse=True)
    if subject.predictions is None and subject.features is None:
        yield Finding(kind, title, UNASKED, "Not looked for: that needs the predictions of a run (run) or features (backbone).")
        return
    if len(present) < 2 or np.bincount(labels).min() < _FOLDS:
        yield Finding(kind, title, UNASKED, "Not looked for: a class has fewer tiles than five folds need.")
        return
    white = None if subject.features is None else whiten(subject.features[: len(labels)], subject.seed)
    given = None if subject.predictions is None else subject.predictions.probabilities[:, present]
    said, trial, cut = examine(white, labels, given, subject.seed)
    yield _describe(subject, find_issues(labels, said, cut), present[said.argmax(axis=1)], white, trial)


def examine(white: NDArray[np.float32] | None, labels: Rows, given: Floats | None, seed: int) -> tuple[Floats, Trial, float]:
    """Return what others say of each tile, what that finds of planted errors, and the cut, chosen on other planted errors.

    With out-of-fold probabilities `given`, ``(n_tiles, n_classes)``, these count, and errors are planted afterwards.
    """

    def say(each: Rows) -> Floats:
        if given is not None:
            return np.asarray((given + _TINY) / (given + _TINY).sum(axis=1, keepdims=True))
        assert white is not None
        return say_of_each(white, each, seed)

    def draw(number: int) -> Draw:
        changed, planted = flip(labels, FLIPPED_SHARE, seed + number)
        return Draw(margins(changed, say(changed)), planted)

    said = say(labels)
    before = margins(labels, said)
    n_draws = min(_MOST_DRAWS, math.ceil(_PLANTED / (FLIPPED_SHARE * len(labels))))
    cut = choose_cut([draw(number) for number in range(1, n_draws + 1)], before)
    return said, judge([draw(number) for number in range(n_draws + 1, 2 * n_draws + 1)], before, cut), cut


def _describe(subject: Subject, issues: Issues, likeliest: Rows, white: NDArray[np.float32] | None, trial: Trial) -> Finding:
    source = "features, learnt anew with the changed labels"
    if subject.predictions is not None:
        source = "the run, which has not learnt the changed labels: of errors that it has learnt it finds fewer"
    pairs: dict[tuple[str, str], int] = {}
    for row in issues.rows:
        pair = (subject.class_of(row), subject.classes[likeliest[row]])
        pairs[pair] = pairs.get(pair, 0) + 1
    commonest = sorted(pairs.items(), key=lambda item: -item[1])[:10]
    strips = []
    found = nearest(white, _SHOWN_NEIGHBOURS)[1] if white is not None else None
    for row in map(int, issues.rows[:_STRIPS]):
        heading = f"{subject.class_of(row)}, by others {subject.classes[likeliest[row]]} (margin {issues.margin[row]:.2f})"
        strips.append(Strip(heading, (row, *(map(int, found[row]) if found is not None else ()))))
    n, share = len(issues.rows), len(issues.rows) / len(subject.data)
    doubts = [
        Doubt(row, subject.class_of(row), subject.classes[likeliest[row]], float(issues.margin[row]))
        for row in issues.rows.tolist()
    ]
    return Finding(
        "label_errors", "Labels in doubt", DOUBTFUL if share > 0.005 else NOTE if n else CLEAR,
        f"In doubt: {n} of {len(subject.data)} labels ({100 * share:.1f} %). Where {100 * FLIPPED_SHARE:.0f} % of the labels "
        f"were changed on purpose, {100 * trial.recall:.0f} % of these were found, and {100 * trial.precision:.0f} % of the "
        f"newly named were changed ones (by {source}).",
        "Look at the first ones and correct what is wrong; a doubt is no error, so none is in exclude.txt. The first tile "
        "of a row is the one in doubt, beside it its nearest neighbours.",
        issues.rows, strips=strips,
        table=Table(("label", "by others", "tiles"), tuple((a, b, f"{count}") for (a, b), count in commonest)) if n else None,
        figures={"precision_of_planted": trial.precision, "recall_of_planted": trial.recall}, doubts=doubts,
    )  # fmt: skip


CHECK = Check("labels", _find)
