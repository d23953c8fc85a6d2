"""The same tile again: bit for bit, or turned, mirrored, stored anew, brightened or shifted by a few pixels.

Hashes find candidates by what is coarse, and pixels decide by what is finer: two tiles with a bright corner each are alike in
all that is coarse. Rotations by other angles, crops and overlaps are beyond hashes: `siblings`.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from histo_mlflow.auditing.clusters import Clusters, Kind
from histo_mlflow.auditing.finding import Check, Finding, Measures
from histo_mlflow.auditing.hashes import SYMMETRIES, Floats32, Symmetry, coefficients, contrast, grey, pack
from histo_mlflow.auditing.subject import Rows, Subject
from histo_mlflow.tiles.copies import digest_each, tie_together

Pairs = NDArray[np.int64]
"""``(n, 2)``, positions of two tiles."""


class Reach(NamedTuple):
    """How unlike the hashes of near-duplicates may be: what is nearer is a candidate, whose pixels are read.

    Attributes:
        bits: Of 63 that may differ.
        alike: Least cosine of the coefficients themselves, by which most of these are passed over.
    """

    bits: int
    alike: float


REACH = Reach(16, 0.8)
"""A shift of real tiles of 224 px by 4 px changes 12 bits at the 95th percentile; of planted near-duplicates of 64 and 224 px
none had a cosine below 0.86. A wider reach finds no more of them, and its candidates grow with the square of the tiles."""

REACH_OF_SMALL = Reach(18, 0.7)
"""Of tiles of few pixels, of which one is much: a shift of 28 px by 1 px changes 17 bits at the 95th percentile, and 1 of 100
planted near-duplicates has a cosine below 0.7. A radius of 20 bits would find 1 in 200 more, and take twice as long."""

_SMALL_PX = 64
_MIN_CONTRAST = 0.3  # grey levels: below, a hash is of noise, and an empty tile resembles every other
_EDGE_PX = 64  # at which detail is compared
_MAX_SHIFT_PX = 4  # at that size: 14 px of 224
_COARSE_PX = 4.0  # at that size: standard deviation of the blur whose result is left out of the comparison
_MIN_CORRELATION = 0.65
"""Of detail. Planted near-duplicates of 28, 64 and 224 px have more, but for 1 in 200; between 10,004 and 7,180 tiles of 28 px
that are not related the most is 0.58 of those within 16 bits (docs/audits.md)."""

_BLOCK_PAIRS = 2048
_BLOCK_QUERIES = 4096

EXACT = Kind("exact", "exact duplicates", is_copy=True, how="all pixels are the same")
NEAR = Kind(
    "near", "near-duplicates", is_copy=True, how="the same but for mirroring, quarter turns, storing, brightness, small shifts"
)


def _measure(tiles: NDArray[np.uint8]) -> Measures:
    return {
        "sha256": np.frombuffer(b"".join(digest_each(tiles)), np.uint8).reshape(-1, 32),
        "coefficients": coefficients(grey(tiles)),
    }


def exact_clusters(subject: Subject) -> Rows:
    """Return the number of the cluster ``(n_tiles,)`` of tiles whose pixels are the same."""
    whole = np.ascontiguousarray(subject.measures["sha256"]).view("V32").ravel()
    return np.asarray(np.unique(whole, return_inverse=True)[1], dtype=np.int64)


def near_pairs(subject: Subject) -> Pairs:
    """Return pairs of near-duplicates; of tiles whose pixels are the same one stands for all."""
    first = np.sort(np.unique(exact_clusters(subject), return_index=True)[1])
    known = subject.measures["coefficients"]
    rows = first[contrast(known[first]) >= _MIN_CONTRAST]
    found = [
        pairs[_correlation(subject, pairs, symmetry) >= _MIN_CORRELATION]
        for symmetry, within in _candidates(known[rows], REACH_OF_SMALL if subject.data.tile_size_px < _SMALL_PX else REACH)
        for pairs in _blocks(rows[within])
    ]
    return np.concatenate([*found, np.zeros((0, 2), np.int64)])


def near_clusters(subject: Subject) -> Rows:
    """Return the number of the cluster ``(n_tiles,)`` of exact and near-duplicates."""
    exact = exact_clusters(subject)
    representative = np.unique(exact, return_index=True)[1]
    links = np.column_stack([np.arange(len(subject)), representative[exact]])
    return tie_together(len(subject), np.concatenate([links, near_pairs(subject)]))


def _candidates(known: Floats32, reach: Reach) -> Iterator[tuple[Symmetry, Pairs]]:
    """Yield, for each symmetry, pairs (i, j), i < j, of which i so changed has nearly the hash of j and its coefficients."""
    index = faiss.IndexBinaryFlat(64)
    index.add(pack(known))
    directions = _directions(known)
    for symmetry in SYMMETRIES:
        changed = symmetry.of_coefficients(known)
        hashes, changed_directions = pack(changed), _directions(changed)
        parts = [np.zeros((0, 2), np.int64)]
        for start in range(0, len(hashes), _BLOCK_QUERIES):
            limits, _, found = index.range_search(hashes[start : start + _BLOCK_QUERIES], reach.bits + 1)
            query: Rows = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)).tolist())
            pairs = np.column_stack([query, found])[query < found]
            alike = np.einsum("ij,ij->i", changed_directions[pairs[:, 0]], directions[pairs[:, 1]])
            parts.append(pairs[alike >= reach.alike])
        yield symmetry, np.concatenate(parts)


def _directions(known: Floats32) -> Floats32:
    """Return coefficients ``(n, 63)`` without the mean, each tile's of norm 1."""
    flat = known.reshape(len(known), -1)[:, 1:]
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9), np.float32)


def _blocks(pairs: Pairs) -> Iterable[Pairs]:
    return (pairs[start : start + _BLOCK_PAIRS] for start in range(0, len(pairs), _BLOCK_PAIRS))


def _correlation(subject: Subject, pairs: Pairs, symmetry: Symmetry) -> Floats32:
    """Return, for each pair, the highest correlation of detail over small shifts, the first tile changed by `symmetry`."""
    rows, place = np.unique(pairs, return_inverse=True)
    detail = np.stack([_detail(subject.pixels(int(row))) for row in rows])
    place = place.reshape(pairs.shape)
    first = fft.rfft2(symmetry.of_tiles(detail[place[:, 0]]))
    second = fft.rfft2(detail[place[:, 1]])
    shifted = fft.irfft2(first * second.conj(), s=(_EDGE_PX, _EDGE_PX))
    near = np.r_[0 : _MAX_SHIFT_PX + 1, -_MAX_SHIFT_PX:0]
    return np.asarray(shifted[:, near][:, :, near].max(axis=(1, 2)))


def _detail(tile: NDArray[np.uint8]) -> Floats32:
    """Return the brightness of a tile less what is coarse in it, with mean 0 and norm 1: the product of two correlates them."""
    small = cv2.resize(grey(tile[None])[0], (_EDGE_PX, _EDGE_PX), interpolation=cv2.INTER_AREA)
    fine = small - cv2.GaussianBlur(small, (0, 0), _COARSE_PX)
    centred = fine - fine.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-9), np.float32)


def _find(subject: Subject) -> Iterator[Finding]:
    exact = exact_clusters(subject)
    yield from Clusters(subject, exact, EXACT).find()
    yield from Clusters(subject, tie_together(len(subject), near_pairs(subject)), NEAR).find()


CHECK = Check("duplicates", _find, _measure)
