"""Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang 2021, "Confident learning").

What is said of each tile comes from others: from the folds of a run, or from a logistic regression and nearest neighbours over
features. How many errors this finds, and how many of those it names are none, is measured on labels changed on purpose.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.audit.finding import CLEAR, DOUBTFUL, NOTE, UNASKED, Check, Finding, Strip, Table
from histo_mlflow.audit.neighbours import nearest, whiten
from histo_mlflow.audit.subject import Rows, Subject
from histo_mlflow.evaluation.intervals import Floats

FLIPPED_SHARE = 0.05
_FOLDS = 5
_NEIGHBOURS = 15
_TEMPERATURE = 0.1  # of the weights of neighbours: a similarity smaller by so much counts less by e
_COST = 0.003  # C of the regression on standardised features: little, or it would learn the errors
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


def find_issues(labels: Rows, said: Floats) -> Issues:
    """Return the labels ``(n_tiles,)`` that out-of-fold probabilities ``(n_tiles, n_classes)`` speak against."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_normalized_margin_for_each_label

    margin = 2 * np.asarray(get_normalized_margin_for_each_label(labels, said)) - 1
    flagged = find_label_issues(labels, said, filter_by="low_self_confidence", n_jobs=1)
    rows = np.flatnonzero(flagged & (margin < 0))
    return Issues(rows[np.argsort(margin[rows], kind="stable")], margin)


def say_of_each(white: NDArray[np.float32], labels: Rows, seed: int) -> Floats:
    """Return what others say of each tile ``(n_tiles, n_classes)``: geometric mean of a regression and of neighbours.

    Twice: in the second round, tiles whose labels the first one doubts are not learnt from.
    """
    is_trusted = np.ones(len(labels), bool)
    for _ in range(2):
        said = np.sqrt(_regression(white, labels, is_trusted, seed) * _neighbours(white, labels, is_trusted))
        said /= said.sum(axis=1, keepdims=True)
        is_trusted = np.ones(len(labels), bool)
        is_trusted[find_issues(labels, said).rows] = False
    return said


def _regression(white: NDArray[np.float32], labels: Rows, is_trusted: NDArray[np.bool_], seed: int) -> Floats:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    said = np.zeros((len(labels), labels.max() + 1))
    for train, held_out in StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(white, labels):
        own = train[is_trusted[train]]
        model = LogisticRegression(C=_COST * len(white) / 10, max_iter=200).fit(white[own], labels[own])
        said[np.ix_(held_out, model.classes_)] = model.predict_proba(white[held_out])
    return said + _TINY


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


def judge(found: Rows, planted: Rows) -> tuple[float, float]:
    """Return precision and recall of `found` for what was planted."""
    hits = len(np.intersect1d(found, planted))
    return hits / max(len(found), 1), hits / max(len(planted), 1)


def _find(subject: Subject) -> Iterator[Finding]:
    kind, title = "label_errors", "Labels in doubt"
    labels = subject.labels[: len(subject.data)]
    present, dense = np.unique(labels, return_inverse=True)
    if subject.predictions is None and subject.features is None:
        yield Finding(kind, title, UNASKED, "Not looked for: that needs the predictions of a run (run) or features (backbone).")
        return
    if len(present) < 2 or np.bincount(dense).min() < _FOLDS:
        yield Finding(kind, title, UNASKED, "Not looked for: a class has fewer tiles than five folds need.")
        return
    white = None if subject.features is None else whiten(subject.features[: len(labels)], subject.seed)
    flipped, planted = flip(dense, FLIPPED_SHARE, subject.seed)
    if subject.predictions is not None:
        said = subject.predictions.probabilities[:, present]
        said, of_flipped = [said / said.sum(axis=1, keepdims=True)] * 2
        source = (
            "the out-of-fold predictions of the run, which has not learnt the changed labels: with errors in training, less"
        )
    else:
        assert white is not None
        said, of_flipped = (say_of_each(white, each, subject.seed) for each in (dense, flipped))
        source = "features, learnt anew with the changed labels"
    issues, own = find_issues(dense, said), find_issues(flipped, of_flipped)
    # What the untouched labels are doubted for is none of the planted errors, and may be an error all the same.
    new = np.setdiff1d(own.rows, np.setdiff1d(issues.rows, planted))
    precision, recall = judge(new, planted)
    yield _describe(subject, issues, said, present, white, (precision, recall, source))


def _describe(
    subject: Subject, issues: Issues, said: Floats, present: Rows, white: NDArray[np.float32] | None,
    measured: tuple[float, float, str],
) -> Finding:  # fmt: skip
    precision, recall, source = measured
    likeliest = present[said.argmax(axis=1)]
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
    return Finding(
        "label_errors", "Labels in doubt", DOUBTFUL if share > 0.005 else NOTE if n else CLEAR,
        f"{n} of {len(subject.data)} labels ({100 * share:.1f} %) are in doubt. Of {100 * FLIPPED_SHARE:.0f} % labels of this set "
        f"that were changed on purpose, {100 * recall:.0f} % were found, and {100 * precision:.0f} % of what was newly named were "
        f"changed ones (by {source}).",
        "Look at the first ones and correct what is wrong; a doubt is no error, so none is in exclude.txt. The first tile "
        "of a row is the one in doubt, beside it its nearest neighbours.",
        issues.rows, strips=strips,
        table=Table(("label", "by others", "tiles"), tuple((a, b, f"{count}") for (a, b), count in commonest)) if n else None,
        figures={"precision_of_planted": precision, "recall_of_planted": recall},
    )  # fmt: skip


CHECK = Check("labels", _find)
