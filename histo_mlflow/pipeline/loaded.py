"""A model that answers in Python and in notebooks: called with tiles, a folder, files or an npz, it returns a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.console import show_log, warn
from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.notebook import Row, table_of
from histo_mlflow.learning.compute import Compute, resolve_compute_for_report
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.learning.options import ComputeOptions
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.inputs import check_form, load_model
from histo_mlflow.pipeline.predict import threshold_of
from histo_mlflow.pipeline.scale import middle_of
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.tile_set import PIXELS, Form, check_pixels
from histo_mlflow.tiles.unlabelled import ImageSource, open_files, open_images
from histo_mlflow.tracking.registry import version_of
from histo_mlflow.tracking.store import read_store

_GIVEN = "the tiles"

Tiles = NDArray[Any] | str | PathLike[str] | Sequence[str | PathLike[str]]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model; call it with tiles.

    Attributes:
        address: Under which it was asked for.
        version: Number of the registered version that the address stands for, or None.
        classes: In the order of the probabilities.
        tile_size_px: Edge length to which it brings tiles.
        microns_per_pixel: Scale at that size, or None if it is not stated.
        is_synthetic: Whether it has learnt from the demo's drawings: then what it says of tissue means nothing.
    """

    address: str
    version: str | None
    classes: tuple[str, ...]
    tile_size_px: int
    microns_per_pixel: float | None
    is_synthetic: bool
    _model: Model
    _compute: Compute

    def __call__(
        self, tiles: Tiles, *, microns_per_pixel: float | None = None, rescale: bool = False, abstain: bool = False
    ) -> pd.DataFrame:
        """Return a row for each tile, in order: ``label``, then ``prob_<class>`` in class order.

        Args:
            tiles: ``(n_tiles, size, size, 3)`` uint8 RGB, or one tile ``(size, size, 3)``; or what `predict --data` takes: a
                folder, an image, an npz; or a list of files. Of a model that takes features, ``(n_tiles, n_features)``.
            microns_per_pixel: Width of a pixel of these tiles, if it is known: a model of another scale refuses them.
            rescale: Take the middle of larger tiles instead, which shows as much tissue as the model's own.
            abstain: Add a column ``abstain``: true where a tile should be left to a person.

        Returns:
            The table; of files its index is their paths. A file that can't be read has a warning, and a row without values.

        Raises:
            RequestError: The tiles are not of the form or scale that the model takes; floats are refused and never scaled.
        """
        threshold = threshold_of(self._model) if abstain else None
        images = self._source(tiles)
        check_form(images.form, self._model, where=_GIVEN)
        failures: list[str] = []
        said = np.full((len(images), len(self.classes)), np.nan)
        for block in (block for blocks in images.blocks(failures) for block in blocks):
            seen = middle_of(self._model, block.images, microns_per_pixel, is_rescaled=rescale)
            said[block.positions] = probabilities_of(infer(self._model.folded, seen, compute=self._compute))
        if images.array is not None:
            check_unchanged(images.array)
        for failure in failures:
            warn(failure)
        index = pd.RangeIndex(len(images)) if images.column == "index" else pd.Index(images.names, name=images.column)
        table = pd.DataFrame(said, columns=[f"prob_{name}" for name in self.classes], index=index)
        is_read = ~np.isnan(said).any(axis=1)
        labels = [self.classes[row.argmax()] if read else None for row, read in zip(said, is_read, strict=True)]
        table.insert(0, "label", pd.Series(labels, index=index, dtype=object))
        if threshold is not None:
            table["abstain"] = ~(said.max(axis=1) >= threshold)  # also where nothing could be read
        return table

    def __repr__(self) -> str:
        version = f", version {self.version}" if self.version else ""
        return f"<{self.address}{version}: {' '.join(self.classes)}; tiles of {self.tile_size_px} px>"

    def _repr_html_(self) -> str:
        return table_of("model", self._rows())

    def _rows(self) -> Iterator[Row]:
        facts = self._model.facts
        yield Row("address", self.address, f"version {self.version}" if self.version else "")
        yield Row("classes", " ".join(self.classes))
        scale = f"{self.microns_per_pixel:g} microns per pixel" if self.microns_per_pixel else "scale not stated"
        yield Row("takes", f"features of {facts.encoder}" if facts.encoder else f"tiles of {self.tile_size_px} px", scale)
        yield Row("has learnt from", facts.data_source, "drawings, not tissue" if self.is_synthetic else "")
        yield Row("backbone", facts.backbone, facts.selected)

    def _source(self, tiles: Tiles) -> ImageSource:
        if isinstance(tiles, (str, PathLike)):
            return open_images(str(tiles))
        if isinstance(tiles, np.ndarray):
            return self._of_array(tiles)
        files = list(tiles)
        if not files or not all(isinstance(each, (str, PathLike)) for each in files):
            raise OptionError(f"{_GIVEN}: give an array of uint8, a path, or a list of paths")
        return open_files(files)

    def _of_array(self, tiles: NDArray[Any]) -> ImageSource:
        if self._model.facts.takes_features:
            rows = np.atleast_2d(tiles).astype(np.float32)
            return ImageSource(
                "index", [str(k) for k in range(len(rows))], Form(self._model.facts.encoder, rows.shape[1]), rows
            )
        stack = tiles[None] if tiles.ndim == 3 else tiles
        check_pixels(stack.shape, stack.dtype, where=_GIVEN)
        return ImageSource("index", [str(k) for k in range(len(stack))], PIXELS, stack)


def load_ready(model: str, *, device: str) -> LoadedModel:
    """Return the model of an address on a device; raises `RequestError` if there is no such model or device."""
    show_log()
    compute, store = resolve_compute_for_report(ComputeOptions(device=device)), read_store()
    found = load_model(store, model, compute.device)
    facts = found.facts
    version = version_of(store, model) or (model.rpartition("/")[2] if model.startswith("models:/") else None)
    return LoadedModel(
        model, version, found.classes, facts.tile_size_px, facts.microns_per_pixel, facts.is_synthetic, found, compute
    )
