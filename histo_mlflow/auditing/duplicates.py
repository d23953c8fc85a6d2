"""The same tile again: bit for bit, or turned, mirrored, stored anew, brightened or shifted by a few pixels.

Hashes find candidates, and pixels decide. Rotations by other angles, crops and overlaps are beyond hashes: `siblings`.
"""

from collections.abc import Iterable, Iterator

import cv2
import faiss
import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.clusters import Clusters, Kind, cluster
from histo_mlflow.auditing.finding import Check, Finding, Measures
from histo_mlflow.auditing.hashes import SYMMETRIES, Symmetry, coefficients, contrast, grey, pack
from histo_mlflow.auditing.subject import Rows, Subject
from histo_mlflow.tiles.copies import digest_each

Pairs = NDArray[np.int64]
"""``(n, 2)``, positions of two tiles."""

RADIUS_BITS = 16
"""Of 63. Shifts of real tiles by 4 px of 224 change 12 bits at the 95th percentile; of 1,364,224 pairs that are not related
120 are so near (docs/audits.md)."""

_MIN_ALIKE = 0.8
"""Cosine of the coefficients themselves, by which most candidates are passed over before their pixels are read. Of 1,770 real
tiles each with a planted near-duplicate none was below 0.86; of unrelated tiles within the radius 99 % are below 0.76."""

_MIN_CONTRAST = 0.3  # grey levels: below, a hash is of noise, and an empty tile resembles every other
_EDGE_PX = 64  # at which pixels are compared
_MAX_SHIFT_PX = 4  # at that size: 14 px of 224
_MIN_CORRELATION = 0.87
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
        for symmetry, within in _candidates(known[rows])
        for pairs in _blocks(rows[within])
    ]
    return np.concatenate([*found, np.zeros((0, 2), np.int64)])


def near_clusters(subject: Subject) -> Rows:
    """Return the number of the cluster ``(n_tiles,)`` of exact and near-duplicates."""
    exact = exact_clusters(subject)
    representative = np.unique(exact, return_index=True)[1]
    links = np.column_stack([np.arange(len(subject)), representative[exact]])
    return cluster(len(subject), np.concatenate([links, near_pairs(subject)]))


def _candidates(known: NDArray[np.float32]) -> Iterator[tuple[Symmetry, Pairs]]:
    """Yield, for each symmetry, pairs (i, j), i < j, of which i so changed has nearly the hash of j and its coefficients."""
    index = faiss.IndexBinaryFlat(64)
    index.add(pack(known))
    directions = _directions(known)
    for symmetry in SYMMETRIES:
        changed = symmetry.of_coefficients(known)
        hashes, changed_directions = pack(changed), _directions(changed)
        parts = [np.zeros((0, 2), np.int64)]
        for start in range(0, len(hashes), _BLOCK_QUERIES):
            limits, _, found = index.range_search(hashes[start : start + _BLOCK_QUERIES], RADIUS_BITS + 1)
            query: Rows = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)).tolist())
            pairs = np.column_stack([query, found])[query < found]
            alike = np.einsum("ij,ij->i", changed_directions[pairs[:, 0]], directions[pairs[:, 1]])
            parts.append(pairs[alike >= _MIN_ALIKE])
        yield symmetry, np.concatenate(parts)


def _directions(known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return coefficients ``(n, 63)`` without the mean, each tile's of norm 1."""
    flat = known.reshape(len(known), -1)[:, 1:]
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9), np.float32)


def _blocks(pairs: Pairs) -> Iterable[Pairs]:
    return (pairs[start : start + _BLOCK_PAIRS] for start in range(0, len(pairs), _BLOCK_PAIRS))


def _correlation(subject: Subject, pairs: Pairs, symmetry: Symmetry) -> NDArray[np.float64]:
    """Return, for each pair, the highest correlation of brightness over small shifts, the first tile changed by `symmetry`."""
    rows, place = np.unique(pairs, return_inverse=True)
    small = np.stack([_shrunk(subject.pixels(int(row))) for row in rows])
    place = place.reshape(pairs.shape)
    first = np.fft.rfft2(_standardised(symmetry.of_tiles(small[place[:, 0]])))
    second = np.fft.rfft2(_standardised(small[place[:, 1]]))
    shifted = np.fft.irfft2(first * second.conj(), s=(_EDGE_PX, _EDGE_PX))
    near = np.r_[0 : _MAX_SHIFT_PX + 1, -_MAX_SHIFT_PX:0]
    return np.asarray(shifted[:, near][:, :, near].max(axis=(1, 2)))


def _shrunk(tile: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(grey(tile[None])[0], (_EDGE_PX, _EDGE_PX), interpolation=cv2.INTER_AREA))


def _standardised(tiles: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return tiles with mean 0 and norm 1, so that the product of two is their correlation."""
    centred = tiles - tiles.mean(axis=(1, 2), keepdims=True)
    return np.asarray(centred / np.maximum(np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True)), 1e-9))


def _find(subject: Subject) -> Iterator[Finding]:
    exact = exact_clusters(subject)
    yield from Clusters(subject, exact, EXACT).find()
    yield from Clusters(subject, cluster(len(subject), near_pairs(subject)), NEAR).find()


CHECK = Check("duplicates", _find, _measure)
