"""The fingerprint of tiles, the same whatever the format; of tiles in a file it is kept in the cache, for the next start."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from os import cpu_count

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.progress import Bar
from histo_mlflow.tiles.cache import cache_folder, cache_key, checksum_blocks, recall, remember
from histo_mlflow.tiles.mapped import FileStamp, MappedTiles, Origin, check_unchanged
from histo_mlflow.tiles.pixels import JoinedTiles, Pixels, parts_of

BLOCK_TILES = 512
"""Each block has a SHA-256 of its own, so that all cores share the work; the fingerprint is one over these."""

_SECONDS_WITHOUT_A_BAR = 1


def hash_block(images: Pixels, start: int) -> bytes:
    """Return the SHA-256 of the block of `BLOCK_TILES` tiles that begins with tile `start`; the last may be short."""
    return hashlib.sha256(np.ascontiguousarray(images[start : start + BLOCK_TILES]).data).digest()


def fingerprint_of(images: Pixels, labels: NDArray[np.int64], hashed: Sequence[bytes] = ()) -> str:
    """Return a SHA-256 over all pixels, or features, and labels (hex).

    Args:
        images: ``(n_tiles, size, size, 3)`` or ``(n_tiles, n_features)``. If they are mapped, the cache is asked first: each
            file must have the size, times and inode that it had when it was hashed, and the same bytes in some blocks all over
            it.
        labels: ``(n_tiles,)``.
        hashed: `hash_block` of all blocks, where they have just been written; nothing is read then.

    Raises:
        TilesChangedError: A file was changed while it was being hashed.
        TileFormatError: The pixels are not what their checksum says.
    """
    mapped = [part for part in parts_of(images) if isinstance(part, MappedTiles)]
    if len(mapped) < len(parts_of(images)):
        return _hash_tiles(images, labels)
    places: list[tuple[object, ...]] = [(part.origin.path, part.origin.stamp, part.offset, part.shape) for part in mapped]
    if isinstance(images, JoinedTiles):
        places.append((hashlib.sha256(images.places()).hexdigest(),))
    key = cache_key("fingerprint", *chain.from_iterable(places), hashlib.sha256(labels.data).hexdigest())
    checksum = " ".join(checksum_blocks(part.origin.path) for part in mapped)
    kept = recall(key)
    if kept.get("checksum") == checksum:
        return str(kept["fingerprint"])
    fingerprint = _over_blocks(images, labels, hashed) if hashed else _hash_tiles(images, labels)
    check_unchanged(images)
    if all(_is_safe(part.origin) for part in mapped):
        remember(key, {"checksum": checksum, "fingerprint": fingerprint})
    return fingerprint


def _is_safe(origin: Origin) -> bool:
    """Return whether a later change of the file would be seen."""
    is_known = origin.is_settled or origin.path.is_relative_to(cache_folder().resolve())
    return is_known and FileStamp.of(origin.path) == origin.stamp


def _hash_tiles(images: Pixels, labels: NDArray[np.int64]) -> str:
    """Read block by block, so that a memory map stays on disk."""
    digests: list[bytes] = []
    starts = range(0, len(images), BLOCK_TILES)
    pool = ThreadPoolExecutor(cpu_count())

    def block(start: int) -> memoryview:
        return np.ascontiguousarray(images[start : start + BLOCK_TILES]).data

    def hashed_blocks() -> Iterator[memoryview]:
        hashes = pool.map(lambda start: hash_block(images, start), starts)
        bar = Bar(starts, unit="block", desc="hash tiles", delay=_SECONDS_WITHOUT_A_BAR)
        for start, hashed in zip(bar, hashes, strict=True):
            digests.append(hashed)
            yield block(start)

    checksum = images.origin.checksum if isinstance(images, MappedTiles) else None
    try:
        if checksum is not None:
            checksum.check(hashed_blocks())
        else:
            deque(hashed_blocks(), maxlen=0)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for gigabytes
    return _over_blocks(images, labels, digests)


def _over_blocks(images: Pixels, labels: NDArray[np.int64], digests: Sequence[bytes]) -> str:
    digest = hashlib.sha256(repr((images.shape, images.dtype.name, "int64")).encode())
    for each in digests:
        digest.update(each)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()
