"""Features in an HDF5 file that others can read, written block by block; knows nothing of networks or of tiles.

The dataset ``features``, ``(n_tiles, n_features)`` float32, lies in one piece and has its place from the beginning. So its rows
are written and mapped as those of a plain file, the structure of the file is whole before the first row is there, and no end of
the process can damage it.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

DATASET = "features"
_TYPE = np.dtype("<f4")


@dataclass(frozen=True)
class FeatureFacts:
    """What features are of; they stand as attributes with the dataset, and with other facts they are other features.

    Attributes:
        encoder: Name of the backbone.
        encoder_sha256: Of its weights, the head's left out.
        tiles_sha256: Fingerprint of the tiles.
        tile_size_px: Edge length at which the backbone saw them.
        preprocessing: From tiles to what the backbone sees, in words.
        view: How tiles were turned first, in words.
        precision: ``fp32`` or ``bf16``.
    """

    encoder: str
    encoder_sha256: str
    tiles_sha256: str
    tile_size_px: int
    preprocessing: str
    view: str
    precision: str


class FeatureWriter:
    """Rows of features on their way into a file; what was finished before counts, if the process was ended in between.

    Which rows are finished stands in a file beside it, and is written when they have reached the disk.
    """

    def __init__(self, path: Path, shape: tuple[int, int], facts: FeatureFacts) -> None:
        self._path, self._shape = path, shape
        self._progress = path.with_suffix(".progress")
        self.n_finished = self._find_finished(facts)
        if self.n_finished == 0:
            self._create(facts)
        self._offset = _place_of(path, shape, facts)

    def _find_finished(self, facts: FeatureFacts) -> int:
        try:
            n_finished = int(json.loads(self._progress.read_text()))
            _place_of(self._path, self._shape, facts)
        except (OSError, ValueError, TypeError):
            return 0
        return n_finished if 0 <= n_finished <= self._shape[0] else 0

    def _create(self, facts: FeatureFacts) -> None:
        self._progress.unlink(missing_ok=True)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        with h5py.File(self._path, "w") as file:
            dataset = file.create_dataset(DATASET, self._shape, _TYPE, dcpl=properties)
            dataset.attrs.update(asdict(facts))

    def append(self, rows: NDArray[np.float32]) -> None:
        """Write the next rows and wait until they are on the disk; then they are finished."""
        with self._path.open("r+b") as file:
            file.seek(self._offset + self.n_finished * self._shape[1] * _TYPE.itemsize)
            file.write(np.ascontiguousarray(rows, dtype=_TYPE).data)
            file.flush()
            os.fsync(file.fileno())
        self.n_finished += len(rows)
        draft = self._progress.with_suffix(".draft")
        draft.write_text(json.dumps(self.n_finished))
        draft.replace(self._progress)

    def close(self) -> None:
        """Drop the note of what is finished: all is."""
        assert self.n_finished == self._shape[0]
        self._progress.unlink(missing_ok=True)


def map_features(path: Path, shape: tuple[int, int], facts: FeatureFacts) -> NDArray[np.float32]:
    """Return the features of a file, mapped read-only.

    Raises:
        ValueError, OSError: The file is another one, or not whole.
    """
    return np.memmap(path, dtype=_TYPE, mode="r", offset=_place_of(path, shape, facts), shape=shape)


def _place_of(path: Path, shape: tuple[int, int], facts: FeatureFacts) -> int:
    """Return at which byte the rows begin; raises `ValueError` or `OSError` unless the file is made for them."""
    with h5py.File(path, "r") as file:
        dataset = file.get(DATASET)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape != shape or dataset.dtype != _TYPE:
            raise ValueError(f"{path} holds no features of shape {shape}")
        found = {name: value.item() if isinstance(value, np.generic) else value for name, value in dataset.attrs.items()}
        if found != asdict(facts):
            raise ValueError(f"{path} holds other features")
        offset = dataset.id.get_offset()
    if offset is None or path.stat().st_size < offset + shape[0] * shape[1] * _TYPE.itemsize:
        raise ValueError(f"{path} is not whole")
    return int(offset)


def add_labels(path: Path, labels: NDArray[np.int64], classes: tuple[str, ...], groups: NDArray[np.str_] | None) -> None:
    """Add to a finished file what is known of its tiles: ``labels``, ``groups``, and the file's attribute ``classes``."""
    text = h5py.string_dtype()
    with h5py.File(path, "r+") as file:
        file.create_dataset("labels", data=labels)
        file.attrs.create("classes", list(classes), dtype=text)
        if groups is not None:
            file.create_dataset("groups", data=groups.astype(object), dtype=text)
