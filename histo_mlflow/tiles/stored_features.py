"""Features that were made before, as a source of tiles: a file of all tiles, or a folder with a file for each slide."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.base.progress import Bar
from histo_mlflow.errors import TileFormatError
from histo_mlflow.tiles.cache import cache_key
from histo_mlflow.tiles.feature_formats import FeatureFile, is_feature_file, open_feature_file, unpacked_features
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.image_files import sub_folders
from histo_mlflow.tiles.mapped import FileStamp
from histo_mlflow.tiles.options import Address
from histo_mlflow.tiles.tile_set import TileSet, check_classes, check_groups, check_labels, order_classes

if TYPE_CHECKING:
    import pandas as pd

TABLE = "slides.csv"
"""In a folder of slides: columns ``slide``, ``label``, and perhaps ``patient``."""


def takes(address: Address) -> bool:
    """Return whether it is a file of features, or a folder with some in it or in its sub-folders."""
    path = address.path
    return is_feature_file(path) or (path.is_dir() and bool(_list_files(path)))


def read(address: Address, _image_size: int = 0) -> TileSet:
    """Return the tiles of a file, or of a folder of files of slides, as features.

    The class of a tile is what its file says of it (``labels``), or what `TABLE` says of its slide, or the sub-folder that the
    file lies in. Its group is what the file says (``groups``), or the patient in `TABLE`, or its slide.

    Raises:
        TileFormatError: A file can't be read, labels are missing, or files were made by different encoders.
    """
    path = address.path
    files = _open_all(path, address.part)
    table = _read_table(path)
    labels, classes = _label(path, files, table)
    images = _unpack(path, files)
    return TileSet(
        images=images,
        labels=labels,
        classes=classes,
        groups=_group(path, files, table),
        source=str(address),
        fingerprint=fingerprint_of(images, labels),
        given_names=_name(files),
        encoder=files[0].encoder,
    )


def read_features(address: Address) -> tuple[NDArray[np.float32], str, NDArray[np.str_] | None]:
    """Return features ``(n_tiles, n_features)``, their encoder, and names of the tiles if they have any; needs no labels."""
    files = _open_all(address.path, address.part)
    return _unpack(address.path, files), files[0].encoder, _name(files)


def _list_files(folder: Path) -> list[Path]:
    inside = [folder, *(sub for sub in sub_folders(folder) if sub.suffix != ".zarr")]
    return [file for one in inside for file in sorted(one.iterdir()) if is_feature_file(file)]


def _open_all(path: Path, table: str | None) -> list[FeatureFile]:
    paths = [path] if is_feature_file(path) else _list_files(path)
    bar = Bar(paths, unit="file", desc="open features", delay=1)
    files = [open_feature_file(each, table) for each in bar]
    first = files[0]
    for file in files:
        if file.shape[1] != first.shape[1] or file.encoder != first.encoder:
            raise TileFormatError(
                f"{file.path} holds {file.shape[1]} features by {file.encoder}, {first.path} {first.shape[1]} by "
                f"{first.encoder}; give files of one encoder"
            )
    slides = [file.slide for file in files if file.is_slide]
    if repeated := {slide for slide in slides if slides.count(slide) > 1}:
        raise TileFormatError(f"{path} has more than one file of the slide {min(repeated)}; leave one")
    return files


def _unpack(path: Path, files: Sequence[FeatureFile]) -> NDArray[np.float32]:
    """Return the features of all files as one array, from the cache."""
    stamps = [(file.path.resolve(), *map(FileStamp.of, _parts(file.path))) for file in files]
    shape = (sum(file.shape[0] for file in files), files[0].shape[1])
    # A table of a zarr is one of several.
    key = cache_key("stored features", stamps, [file.name for file in files])
    return unpacked_features(key, shape, lambda: chain.from_iterable(file.blocks() for file in files), where=str(path))


def _parts(path: Path) -> list[Path]:
    """Return the files of which `path` consists."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _label(path: Path, files: Sequence[FeatureFile], table: "pd.DataFrame | None") -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels of all tiles and the classes."""
    if len(files) == 1 and files[0].classes is not None and files[0].labels is not None:
        classes = check_classes(list(files[0].classes), where=str(path))
        return check_labels(files[0].labels, n_classes=len(classes), where=f"{path}[labels]"), classes
    names = np.concatenate([_names_of_classes(file, path, table) for file in files])
    classes = order_classes(sorted(set(names.tolist())), where=str(path))
    return np.array([classes.index(name) for name in names], dtype=np.int64), classes


def _names_of_classes(file: FeatureFile, path: Path, table: "pd.DataFrame | None") -> NDArray[np.str_]:
    if file.labels is not None:
        if file.labels.dtype.kind == "U":
            return file.labels
        if file.classes is None:
            raise TileFormatError(f"{file.path} has {file.labels.dtype} labels and does not name them; save names as text")
        return np.array(file.classes)[check_labels(file.labels, n_classes=len(file.classes), where=f"{file.path}[labels]")]
    if table is not None:
        return np.full(file.shape[0], _of_slide(table, file, path)["label"])
    if file.path.parent != path and file.path != path:
        return np.full(file.shape[0], file.path.parent.name)
    raise TileFormatError(
        f"{file.path} has no labels; put the files of each class in a folder of its name, or a table {TABLE} with the columns "
        f"slide, label beside them, or labels (names, one for each tile) into them"
    )


def _group(path: Path, files: Sequence[FeatureFile], table: "pd.DataFrame | None") -> NDArray[np.str_] | None:
    if any(file.groups is None and not file.is_slide for file in files):
        return None
    groups = []
    for file in files:
        if file.groups is not None:
            groups.append(file.groups)
        else:
            own = file.slide if table is None or "patient" not in table else str(_of_slide(table, file, path)["patient"])
            groups.append(np.full(file.shape[0], own))
    return check_groups(np.concatenate(groups), where=str(path))


def _read_table(path: Path) -> "pd.DataFrame | None":
    """Return `TABLE` of a folder by slide, or None if there is none."""
    import pandas as pd

    file = path / TABLE
    if not path.is_dir() or not file.is_file():
        return None
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise TileFormatError(f"{file} can't be read ({reason_of(error)}); save it as CSV") from None
    if not {"slide", "label"} <= set(table.columns):
        raise TileFormatError(f"{file} has the columns {' '.join(table.columns)}; slide and label are needed")
    if table["slide"].duplicated().any():
        raise TileFormatError(f"{file} names the slide {table['slide'][table['slide'].duplicated()].iloc[0]} twice; leave one")
    return table.set_index("slide")


def _of_slide(table: "pd.DataFrame", file: FeatureFile, path: Path) -> Any:
    if file.slide not in table.index:
        raise TileFormatError(f"{path / TABLE} does not name the slide {file.slide}; add its line, or move its file away")
    return table.loc[file.slide]


def _name(files: Sequence[FeatureFile]) -> NDArray[np.str_] | None:
    """Return ``SLIDE_X_Y`` for each tile, or None where the tiles have no place on a slide."""
    names: list[str] = []
    for file in files:
        if file.coordinates is None:
            return None
        names += [f"{file.slide}_{x:.10g}_{y:.10g}" for x, y in file.coordinates.tolist()]
    return np.array(names)
