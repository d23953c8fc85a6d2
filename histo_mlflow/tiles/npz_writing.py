"""Tiles written to an ``.npz`` block by block, as `npz` maps them: stored, pixels first; knows nothing of their origin."""

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.whole_file import written_whole

_FORMAT = np.lib.format


def write_npz(
    path: Path, blocks: Iterable[NDArray[np.uint8]], shape: tuple[int, ...], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write `blocks` of ``data``, of which one is in memory at a time, and the other arrays; the file appears when it is whole.

    Args:
        path: The file, which is replaced if it is there.
        blocks: ``(n, size, size, 3)`` each; together of `shape`.
        shape: ``(n_tiles, size, size, 3)``.
        arrays: By key, beside ``data``; texts as ``str``, no objects. They are read after the last block.

    Raises:
        WorkError: The file can't be written.
    """
    header = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
    n_written = 0
    with written_whole(path) as draft, draft.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open("data.npy", "w", force_zip64=True) as member:
                _FORMAT.write_array_header_1_0(member, header)
                for block in blocks:
                    n_written += len(block)
                    member.write(np.ascontiguousarray(block).data)
            for key, array in arrays.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    _FORMAT.write_array(member, np.asarray(array), allow_pickle=False)
        assert n_written == shape[0]
        file.flush()
        os.fsync(file.fileno())
