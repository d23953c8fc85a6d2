"""A network as a folder that LazySlide takes: an exported graph, its facts, one Python file with the class, how to use it."""

import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from histo_mlflow.models import lazyslide_model
from histo_mlflow.models.classifier import TileClassifier

CLASS_FILE = "histo_tiles.py"
_OF_TILES = """\
    from histo_tiles import TileModel
    zs.pp.find_tissues(wsi); zs.pp.tile_tissues(wsi, tile_px={size_px}, mpp={mpp})
    zs.tl.tile_prediction(wsi, TileModel())

{scale}The table of tiles then has a column `prob_<class>` for each class, and `label`. Leave `transform` out: the network
scales tiles itself.
"""
_OF_FEATURES = """\
    from histo_tiles import FeatureModel
    zs.tl.feature_prediction(wsi, FeatureModel(), feature_key="KEY")
    wsi["histo_tiles"].to_df()

KEY is the table of features that the model takes, {n_features} for each tile. The new table has a column `prob_<class>` for
each class.
"""
_README = """\
# A tile classifier for LazySlide

With this folder on Python's path (`sys.path.insert(0, FOLDER)`), `import lazyslide as zs` and `wsi = open_wsi("slide.svs")` of
`wsidata`:

{use}
Classes: {classes}. Needs torch {torch} or newer, and none of the packages that made it.
"""


def write_lazyslide(network: TileClassifier, folder: Path, *, classes: Sequence[str], microns_per_pixel: float | None) -> None:
    """Write `network`, in evaluation mode on the CPU and with batch norms folded, into an empty folder."""
    size_px = network.tile_size_px
    example, sizes = torch.zeros((2, network.n_features)), {0: torch.export.Dim.AUTO}
    if not network.takes_features:
        example = torch.zeros((2, size_px + 2, size_px + 5, 3), dtype=torch.uint8)
        sizes |= {1: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's own deprecated parts
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes={"tiles": sizes}), folder / "model.pt2")
    facts = {"classes": list(classes), "tile_size_px": size_px, "microns_per_pixel": microns_per_pixel}
    (folder / "model.json").write_text(json.dumps(facts, indent=2) + "\n")
    shutil.copyfile(lazyslide_model.__file__, folder / CLASS_FILE)
    (folder / "README.md").write_text(_describe(network, classes, microns_per_pixel))


def open_lazyslide(folder: Path) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Return what runs a written folder as LazySlide does, its class loaded from there: to logarithms of probabilities."""
    spec = importlib.util.spec_from_file_location("histo_tiles", folder / CLASS_FILE)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)

    def run(tiles: NDArray[Any]) -> NDArray[np.float32]:
        if tiles.ndim == 2:
            model = loaded.FeatureModel()
            said = model.predict(tiles)
        else:
            model = loaded.TileModel()
            transform = model.get_transform()
            said = model.predict(torch.stack([transform(tile) for tile in tiles]))
        columns = np.stack([said[f"prob_{name}"] for name in model.classes], axis=1)
        logarithms: NDArray[np.float32] = np.log(np.maximum(columns, np.finfo(np.float64).tiny)).astype(np.float32)
        return logarithms

    return run


def _describe(network: TileClassifier, classes: Sequence[str], microns_per_pixel: float | None) -> str:
    if network.takes_features:
        use = _OF_FEATURES.format(n_features=network.n_features)
    else:
        mpp = "MPP" if microns_per_pixel is None else f"{microns_per_pixel:g}"
        scale = (
            ""
            if microns_per_pixel
            else "MPP is the scale of the tiles that the model has learnt from, which it does not know. "
        )
        use = _OF_TILES.format(size_px=network.tile_size_px, mpp=mpp, scale=scale)
    return _README.format(use=use, classes=" ".join(classes), torch=torch.__version__.partition("+")[0])
