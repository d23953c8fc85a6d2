"""Tiles of the same tissue that no hash can match: turned by any angle, cropped, overlapping, mirrored and stained anew.

A frozen backbone finds candidates, the nearest neighbours of each tile. Local features of the pixels decide: if enough of them
agree on one way to lay one tile over the other, both show the same tissue (Lowe 2004, "Distinctive image features from
scale-invariant keypoints"; consensus by RANSAC).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.clusters import Clusters, Kind
from histo_mlflow.auditing.finding import UNASKED, Check, Finding
from histo_mlflow.auditing.neighbours import nearest, whiten
from histo_mlflow.auditing.subject import Subject
from histo_mlflow.base.progress import Bar
from histo_mlflow.tiles.copies import tie_together

T = TypeVar("T")

N_CANDIDATES = 20
"""Neighbours of each tile that are looked at: of planted siblings 97 % are among 20, 92 % among 5."""

FEWEST_AGREEING = 12
"""Local features that must agree: planted siblings have 99 and more, tiles that overlap by half 15 and more, 1,500 pairs of
unrelated tiles at most 4."""

_MOST_KEYPOINTS = 300
_RATIO = 0.8  # of the distances to the best and to the second-best match: Lowe's limit
_TOLERANCE_PX = 4.0
_SCALES = (0.5, 2.0)

# A mirrored patch has the rows of its 4 x 4 histograms, and the directions in them, in the opposite order.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].reshape(128)

SIBLINGS = Kind(
    "sibling", "siblings", is_copy=False, how="the same tissue, turned, cropped or overlapping, by local features that agree"
)


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Local features of a tile: places ``(n, 2)`` in px and descriptors ``(n, 128)`` of length 1 (root SIFT)."""

    places: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    size_px: int

    @classmethod
    def of(cls, tile: NDArray[np.uint8]) -> "Keypoints":
        """Return those of a tile ``(size, size, 3)``."""
        grey = cv2.cvtColor(np.ascontiguousarray(tile), cv2.COLOR_RGB2GRAY)
        points, descriptors = cv2.SIFT.create(nfeatures=_MOST_KEYPOINTS).detectAndCompute(grey, np.empty(0, np.uint8))
        if not points:
            return cls(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32), len(tile))
        counts = np.asarray(descriptors, np.float32)
        rooted = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9))
        return cls(np.array([point.pt for point in points], np.float32), rooted, len(tile))

    def mirrored(self) -> "Keypoints":
        """Return those of the tile mirrored left-right, without finding them anew."""
        places = np.column_stack([self.size_px - 1 - self.places[:, 0], self.places[:, 1]])
        return Keypoints(places, np.ascontiguousarray(self.descriptors[:, _MIRRORED]), self.size_px)

    def count_agreeing(self, other: "Keypoints") -> int:
        """Return how many match those of `other` by one shift, rotation and change of scale."""
        if min(len(self.places), len(other.places)) < FEWEST_AGREEING:
            return 0
        similar = self.descriptors @ other.descriptors.T
        two = np.partition(similar, -2, axis=1)[:, -2:]
        match = similar.argmax(axis=1)
        best, second = np.sqrt(np.maximum(2 - 2 * two[:, 1], 0)), np.sqrt(np.maximum(2 - 2 * two[:, 0], 0))
        is_mutual = similar.argmax(axis=0)[match] == np.arange(len(match))
        sure = np.flatnonzero((best < _RATIO * second) & is_mutual)
        if len(sure) < FEWEST_AGREEING:
            return 0
        way, agreeing = cv2.estimateAffinePartial2D(
            self.places[sure], other.places[match[sure]], ransacReprojThreshold=_TOLERANCE_PX, maxIters=500
        )
        if way is None or not _SCALES[0] <= np.hypot(way[0, 0], way[1, 0]) <= _SCALES[1]:
            return 0
        return int(agreeing.sum())


def sibling_pairs(subject: Subject) -> NDArray[np.int64]:
    """Return pairs ``(n, 2)`` of tiles that show the same tissue; needs the subject's features."""
    assert subject.features is not None
    _, found = nearest(whiten(subject.features, subject.seed), N_CANDIDATES)
    pairs = np.column_stack([np.repeat(np.arange(len(found)), found.shape[1]), found.ravel()])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    keypoints = list(_on_all_cores(lambda row: Keypoints.of(subject.pixels(row)), range(len(subject)), "local features"))

    def agree(number: int) -> bool:
        first, second = (keypoints[row] for row in pairs[number])
        return any(first.count_agreeing(each) >= FEWEST_AGREEING for each in (second, second.mirrored()))

    return np.asarray(pairs[np.fromiter(_on_all_cores(agree, range(len(pairs)), "compare tiles"), bool, len(pairs))])


def _on_all_cores(work: Callable[[int], T], items: range, description: str) -> Iterator[T]:
    with ThreadPoolExecutor(cpu_count()) as pool:
        yield from Bar(pool.map(work, items), total=len(items), desc=description)


def sibling_clusters(subject: Subject) -> NDArray[np.int64]:
    """Return the number of the cluster ``(n_tiles,)`` of tiles that show the same tissue, directly or over others."""
    return tie_together(len(subject), sibling_pairs(subject))


def _find(subject: Subject) -> Iterator[Finding]:
    if subject.features is None:
        yield Finding("sibling_duplicates", "Siblings", UNASKED, "Not looked for: that needs features (backbone).")
        return
    yield from Clusters(subject, sibling_clusters(subject), SIBLINGS).find()


CHECK = Check("siblings", _find)
