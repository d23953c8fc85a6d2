"""Whether features go by tissue or by the centre that a tile comes from: PathoROB's robustness index, where centres are given.

Kömen et al., "Towards robust foundation models for digital pathology" (arXiv 2507.17845): of the nearest neighbours that tell
the two apart, the share that has the class of a tile and another centre, not its centre and another class.
"""

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.finding import DOUBTFUL, NOTE, UNASKED, Check, Finding, Table
from histo_mlflow.auditing.neighbours import nearest
from histo_mlflow.auditing.subject import Rows, Subject
from histo_mlflow.tiles.options import SITE

_NEIGHBOURS = 15
_FEWEST, _MOST = 20, 100  # tiles of a class from a centre
_MOST_SQUARES = 60


def robustness(
    features: NDArray[np.float32], labels: Rows, centres: NDArray[np.str_], seed: int
) -> dict[tuple[str, str], float]:
    """Return the robustness index of each pair of centres, 0 to 1; 0.5 is that of features that know nothing of either.

    Two classes from two centres are compared at a time, with as many tiles in each of the four cells, so that neither class nor
    centre is more frequent among possible neighbours; of more than 60 such squares some are drawn. Pairs of centres without two
    classes of 20 tiles in both are left out.

    Args:
        features: ``(n_tiles, n_features)``.
        labels: ``(n_tiles,)`` classes.
        centres: ``(n_tiles,)`` names.
        seed: Of what is drawn.
    """
    generator = np.random.default_rng(seed)
    cells = {
        (label, centre): np.flatnonzero((labels == label) & (centres == centre))
        for label, centre in product(np.unique(labels).tolist(), np.unique(centres).tolist())
    }
    squares = [
        (pair, tuple(cells[label, centre] for label, centre in product(two, pair)))
        for pair in combinations(np.unique(centres).tolist(), 2)
        for two in combinations(np.unique(labels).tolist(), 2)
    ]
    squares = [square for square in squares if min(map(len, square[1])) >= _FEWEST]
    drawn = generator.permutation(len(squares))[:_MOST_SQUARES]
    counts: dict[tuple[str, str], NDArray[np.int64]] = {}
    for pair, four in (squares[k] for k in drawn):
        n = min(_MOST, *map(len, four))
        rows = np.concatenate([generator.choice(cell, n, replace=False) for cell in four])
        counts[pair] = counts.get(pair, np.zeros(2, np.int64)) + _count(features[rows], labels[rows], centres[rows])
    return {pair: float(alike / max(alike + near, 1)) for pair, (alike, near) in sorted(counts.items())}


def _count(features: NDArray[np.float32], labels: Rows, centres: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return how many neighbours share the class alone, and how many the centre alone."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    found = nearest(np.ascontiguousarray(unit, np.float32), _NEIGHBOURS)[1]
    has_class, has_centre = labels[found] == labels[:, None], centres[found] == centres[:, None]
    return np.array([(has_class & ~has_centre).sum(), (has_centre & ~has_class).sum()])


def _find(subject: Subject) -> Iterator[Finding]:
    kind, title = "centre_effect", "Tissue or centre"
    centres = subject.data.levels.get(SITE)
    if centres is None or subject.features is None:
        lacking = "centres of the tiles (sites)" if centres is None else "features (backbone)"
        yield Finding(kind, title, UNASKED, f"Not asked: that needs {lacking}.")
        return
    n_tiles = len(subject.data)
    found = robustness(subject.features[:n_tiles], subject.labels[:n_tiles], centres, subject.seed)
    if not found:
        yield Finding(kind, title, UNASKED, f"Not asked: no two centres share two classes of {_FEWEST} tiles.")
        return
    mean = float(np.mean(list(found.values())))
    rows = tuple((" and ".join(pair), f"{value:.2f}") for pair, value in found.items())
    yield Finding(
        kind, title, DOUBTFUL if mean < 0.75 else NOTE,
        f"Of the {_NEIGHBOURS} nearest neighbours over the features that have either the class of a tile or its centre, "
        f"{100 * mean:.0f} % have the class (robustness index {mean:.2f}, mean of {len(found)} pairs of centres; "
        "1: features go by tissue alone; 0.5: as much by the centre).",
        "Hold whole centres out (folds=site): figures within the same centres will not hold elsewhere." if mean < 0.75 else "",
        table=Table(("centres", "robustness index"), rows),
        figures={"robustness_index": mean},
    )  # fmt: skip


CHECK = Check("centres", _find)
