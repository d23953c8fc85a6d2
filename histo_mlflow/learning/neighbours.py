"""What the nearest training tiles say of a tile, by their features: no learning, so a head should do no worse."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.learning.heads import FeatureSplit

NEIGHBOURS = (1, 3, 5, 10, 20, 30, 40, 50)
"""Numbers of neighbours to choose from, as in THUNDER's protocol."""

_MAX_TILES = 4000  # training tiles among which neighbours are looked for, as for the baselines that see colour


def ask_neighbours(given: FeatureSplit, *, seed: int) -> Mapping[str, NDArray[np.int64]]:
    """Return the class of most of the k nearest training tiles, for each k of `NEIGHBOURS` and each tile of a part.

    Near is what has a high cosine of features; of equals the class that comes first. With few training tiles the largest k are
    as many as there are.

    Returns:
        By name of the part, ``val`` and ``test`` if there is one, ``(n_neighbours, n_tiles)``.
    """
    from sklearn.neighbors import NearestNeighbors

    split, n_classes = given.split, len(given.split.tiles.classes)
    rows = split.train.rows
    if len(rows) > _MAX_TILES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAX_TILES, replace=False))
    known = NearestNeighbors(n_neighbors=min(max(NEIGHBOURS), len(rows)), algorithm="brute", metric="cosine")
    known.fit(given.views[0][rows])
    asked = {"val": given.views[0][split.val.rows]}
    if given.test is not None and split.test is not None:
        asked["test"] = given.test[split.test.rows]
    said = {}
    for name, features in asked.items():
        nearest = known.kneighbors(features, return_distance=False)
        votes = np.eye(n_classes, dtype=np.int64)[split.tiles.labels[rows[nearest]]].cumsum(axis=1)
        said[name] = np.stack([votes[:, min(k, votes.shape[1]) - 1].argmax(axis=1) for k in NEIGHBOURS])
    return said
