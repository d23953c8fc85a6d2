"""Files of features as TRIDENT, STAMP and LazySlide write them, made after their sources, and drawn features to put in."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

N_FEATURES = 16
CLASSES = ("benign", "malignant")


def draw_features(label: int, n_tiles: int = 12, seed: int = 0, n_features: int = N_FEATURES) -> NDArray[np.float32]:
    """Features that tell two classes apart, not without error."""
    rng = np.random.default_rng([label, seed])
    return (rng.normal(size=(n_tiles, n_features)) + 0.7 * label).astype(np.float32)


def draw_coordinates(n_tiles: int) -> NDArray[np.int64]:
    """Places on a grid of 512 px."""
    return np.stack([np.arange(n_tiles) * 512, np.full(n_tiles, 1024)], axis=1)


def write_trident(path: Path, features: NDArray[np.floating], **changes: Any) -> None:
    """Write datasets features and coords with their attributes, as TRIDENT's save_h5 does."""
    encoder, coords = changes.get("encoder", "uni_v1"), changes.get("coords", draw_coordinates(len(features)))
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "features", data=features, chunks=(1, *features.shape[1:]), maxshape=(None, *features.shape[1:])
        )
        dataset.attrs["name"] = path.stem
        dataset.attrs["encoder"] = encoder
        if coords is not None:
            places = file.create_dataset("coords", data=coords)
            places.attrs.update({"patch_size": 256, "level0_magnification": 40, "target_magnification": 20, "name": path.stem})


def write_stamp(path: Path, features: NDArray[np.floating], **changes: Any) -> None:
    """Write feats in half precision and coords in micrometres, with the attributes of a STAMP file."""
    coords = changes.get("coords", draw_coordinates(len(features)) * 0.5)
    with h5py.File(path, "w") as file:
        if coords is not None:
            file["coords"] = np.asarray(coords, np.float32)
        file["feats"] = features.astype(np.float16)
        facts = {"stamp_version": "2.5.0", "extractor": changes.get("encoder", "uni2"), "unit": "um", "tile_size_um": 256.0}
        file.attrs.update(
            {**facts, "tile_size_px": 224, "code_hash": "0123abcd", "feat_type": changes.get("feat_type", "tile")}
        )


def write_lazyslide(path: Path, features: NDArray[np.floating], **changes: Any) -> None:
    """Write a SpatialData zarr with a table of features and the shapes of its tiles, as wsidata's add_features does."""
    n_tiles, coords = len(features), changes.get("coords", draw_coordinates(len(features)))
    table = zarr.open_group(path, mode="w").create_group(f"tables/{changes.get('encoder', 'uni')}_tiles")
    table.attrs.update(
        {"encoding-type": "anndata", "encoding-version": "0.1.0", "spatialdata-encoding-type": "ngff:regions_table"}
    )
    table.create_array("X", data=features)
    obs = table.create_group("obs")
    obs.attrs.update({"_index": "_index", "column-order": ["tile_id", "library_id"], "encoding-type": "dataframe"})
    obs.create_array("tile_id", data=np.arange(n_tiles))
    library = obs.create_group("library_id")
    library.attrs["encoding-type"] = "categorical"
    _write_text(library, "categories", ["tiles"])
    library.create_array("codes", data=np.zeros(n_tiles, np.int8))
    if (labels := changes.get("labels")) is not None:
        _write_text(obs, "label", labels)
    if coords is not None:
        folder = path / "shapes" / "tiles"
        folder.mkdir(parents=True)
        order = np.random.default_rng(0).permutation(n_tiles)  # tables are joined by tile_id
        shapes = pd.DataFrame({"tile_id": order, "x": coords[order, 0], "y": coords[order, 1], "tissue_id": 0})
        shapes.to_parquet(folder / "shapes.parquet")


def _write_text(group: Any, name: str, values: Sequence[str]) -> None:
    group.create_array(name, shape=(len(values),), dtype="str")[:] = np.array(values, dtype=object)


Writer = Callable[..., None]
WRITERS: dict[str, tuple[Writer, str]] = {
    "TRIDENT": (write_trident, ".h5"), "STAMP": (write_stamp, ".h5"), "LazySlide": (write_lazyslide, ".zarr"),
}  # fmt: skip


def write_slides(folder: Path, program: str, *, n_slides: int = 6, n_tiles: int = 12, classes: Sequence[str] = CLASSES) -> Path:
    """Write a folder with a sub-folder for each class, and in it a file for each slide."""
    write, suffix = WRITERS[program]
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for k in range(n_slides):
            write(folder / name / f"{name[0]}{k}{suffix}", draw_features(label, n_tiles, seed=k))
    return folder
