"""What can be told without looking at tissue: classes by colour or by how files are stored, sets and groups apart."""

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.finding import DOUBTFUL, NOTE, UNASKED, Check, Finding, Table
from histo_mlflow.auditing.subject import Rows, Subject
from histo_mlflow.evaluation.baselines import HISTOGRAM, MAX_TILES, MEAN_COLOUR
from histo_mlflow.evaluation.intervals import Estimate, Floats
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.wording import in_words

_FOLDS = 5
_FEWEST = 5  # tiles of a class, set or group that is to be told from others
_MOST_GROUPS = 30


def _clues(subject: Subject) -> dict[str, Floats]:
    """Return what a classifier may look at, ``(n_tiles, n)`` by name."""
    known = subject.measures
    clues = {"mean colour": known[MEAN_COLOUR], "colour histogram": known[HISTOGRAM]}
    clues["size as JPEG of quality 90"] = _curved(known["jpeg_bytes"])
    if all(file is not None for file in subject.files):
        clues["size of the file"] = _curved(
            np.array([file.stat().st_size for file in subject.files if file is not None], float)
        )
    return {name: np.asarray(values, np.float64) for name, values in clues.items()}


def _curved(values: NDArray[np.floating]) -> Floats:
    """Return the logarithm and its square, for a class may lie between two others."""
    logarithm = np.log(np.maximum(values, 1))
    centred = (logarithm - logarithm.mean()) / max(float(logarithm.std()), 1e-9)
    return np.column_stack([centred, centred**2])


def told_by(clue: Floats, labels: Rows, names: tuple[str, ...], groups: NDArray[np.str_] | None, seed: int) -> Predictions:
    """Return what a logistic regression on `clue` ``(n_tiles, n)`` says of each tile, fitted on others (whole groups)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(_FOLDS, shuffle=True, random_state=seed)
    probabilities = np.full((len(labels), len(names)), 1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not quite converged, or a rare class that a fold lacks, is good enough here
        for train, held_out in splitter.split(clue, labels, groups):
            if len(np.unique(labels[train])) < 2:
                probabilities[held_out, labels[train[0]]] = 1
                continue
            model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=200)).fit(clue[train], labels[train])
            probabilities[np.ix_(held_out, model.classes_)] = model.predict_proba(clue[held_out])
    return Predictions(labels, probabilities / probabilities.sum(axis=1, keepdims=True), names, groups)


def _drawn(n: int, seed: int) -> Rows:
    return np.sort(np.random.default_rng(seed).permutation(n)[:MAX_TILES])


def _find(subject: Subject) -> Iterator[Finding]:
    clues = _clues(subject)
    yield _classes_from(subject, clues)
    if subject.features is not None:
        clues = clues | {"features": np.asarray(subject.features, np.float64)}
    if subject.test is not None:
        yield _sets_from(subject, clues)
    if subject.groups is not None:
        yield _groups_from(subject, clues)


def _classes_from(subject: Subject, clues: Mapping[str, Floats]) -> Finding:
    rows = _drawn(len(subject.data), subject.seed)
    present, labels = np.unique(subject.labels[rows], return_inverse=True)
    kind, title = "class_shortcuts", "Classes told without looking at tissue"
    if len(present) < 2 or np.bincount(labels).min() < _FOLDS:
        return Finding(kind, title, UNASKED, "Not asked: a class has fewer tiles than five folds need.")
    names = tuple(subject.classes[k] for k in present)
    groups = None if subject.groups is None else subject.groups[rows]
    if groups is not None and len(np.unique(groups)) < _FOLDS:
        groups = None
    chance = 1 / len(names)
    found = {name: _balanced(told_by(clue[rows], labels, names, groups, subject.seed)) for name, clue in clues.items()}
    strongest = max(found, key=lambda name: found[name].value)
    storage = [found[name].value for name in found if name.startswith("size")]
    severity = (
        DOUBTFUL if found[strongest].value > chance + (1 - chance) / 2 or max(storage) > chance + (1 - chance) / 3 else NOTE
    )
    return Finding(
        kind, title, severity,
        f"By {strongest} alone {in_words(found[strongest])} balanced accuracy is reached, {chance:.3f} by chance "
        f"(logistic regression, cross-validated on {len(rows)} tiles{'' if groups is None else ', whole groups held out'}).",
        "A network must be far ahead of these to show that it has learnt tissue; test it on another scanner or hospital.",
        table=_table("balanced accuracy", found),
        figures={name: each.value for name, each in found.items()},
    )  # fmt: skip


def _table(figure: str, found: Mapping[str, Estimate]) -> Table:
    return Table(("clue", figure), tuple((name, in_words(each)) for name, each in found.items()))


def _balanced(predictions: Predictions) -> Estimate:
    return evaluate_predictions(predictions).overall["balanced_accuracy"]


def _sets_from(subject: Subject, clues: Mapping[str, Floats]) -> Finding:
    rows = _drawn(len(subject), subject.seed)
    is_test = subject.is_test[rows].astype(np.int64)
    kind, title = "domain_shift", "data and test_data told apart"
    if np.bincount(is_test, minlength=2).min() < _FEWEST:
        return Finding(kind, title, UNASKED, "Not asked: one of the sets is too small.")
    found = {
        name: evaluate_predictions(told_by(clue[rows], is_test, ("data", "test_data"), None, subject.seed)).overall[
            "macro_auroc"
        ]
        for name, clue in clues.items()
    }
    strongest = max(found, key=lambda name: found[name].value)
    value = found[strongest]
    return Finding(
        kind, title, DOUBTFUL if value.value > 0.8 else NOTE,
        f"A classifier tells by {strongest} whether a tile is of data or of test_data with an AUROC of {in_words(value)} "
        "(0.5: not at all).",
        "The sets differ in more than their tiles: figures on test_data are of another distribution, which may be "
        "wanted, and validation will promise more." if value.value > 0.8 else "",
        table=_table("AUROC", found),
        figures={name: each.value for name, each in found.items()},
    )  # fmt: skip


def _groups_from(subject: Subject, clues: Mapping[str, Floats]) -> Finding:
    assert subject.groups is not None
    names, number, counts = np.unique(subject.groups, return_inverse=True, return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:_MOST_GROUPS]
    kept = kept[counts[kept] >= _FEWEST]
    kind, title = "group_effect", "Groups told apart"
    if len(kept) < 2:
        return Finding(kind, title, UNASKED, "Not asked: there are not two groups of five tiles.")
    rows = np.flatnonzero(np.isin(number, kept))
    rows = rows[_drawn(len(rows), subject.seed)]
    labels = np.searchsorted(np.sort(kept), number[rows])
    shown = tuple(str(names[k]) for k in np.sort(kept))
    found = {name: _balanced(told_by(clue[rows], labels, shown, None, subject.seed)) for name, clue in clues.items()}
    strongest = max(found, key=lambda name: found[name].value)
    return Finding(
        kind, title, DOUBTFUL if found[strongest].value > 0.5 else NOTE,
        f"Of {len(shown)} groups the right one is told by {strongest} with a balanced accuracy of "
        f"{in_words(found[strongest])}, {1 / len(shown):.3f} by chance: so much of a tile is its patient, slide or centre.",
        "Hold whole groups out (groups=), or figures tell how well patients are recognised.",
        table=_table("balanced accuracy", found),
        figures={name: each.value for name, each in found.items()},
    )  # fmt: skip


CHECK = Check("shortcuts", _find)
