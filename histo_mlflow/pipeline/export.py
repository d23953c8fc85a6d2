"""A model written for another runtime, after what was written has said the same of tiles as the model itself."""

import json
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import histo_mlflow
from histo_mlflow.errors import OptionError, WorkError
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.models import exports
from histo_mlflow.models.model import Model
from histo_mlflow.models.options import OPENVINO_INT8, WSINFER
from histo_mlflow.pipeline.quantize import describe_int8, put_quantized
from histo_mlflow.tiles.tile_set import Part, TileSet

_TILES_COMPARED = 64
_DIFFERENCE = "largest_probability_difference"


@dataclass(frozen=True)
class Target:
    """What is written where.

    Attributes:
        form: One of `FORMATS`.
        folder: Is made.
        microns_per_pixel: Where the model itself does not know it; None if it is not given.
        tolerance: By how much a probability may differ from the model's.
        margins: How much worse the model may be in 8 bits.
    """

    form: str
    folder: Path
    microns_per_pixel: float | None
    tolerance: float
    margins: GateOptions


def write_export(model: Model, target: Target, part: Part) -> str:
    """Write a model and return in words how well it agrees with itself on some of the tiles.

    The folder appears when its content was compared with the model.

    Raises:
        OptionError: What would be written may not be passed on, needs a scale that is not given, or the tiles are too few to
            judge 8 bits by.
        WorkError: What was written does not say the same as the model, or in 8 bits is worse; nothing is left.
    """
    if not model.facts.may_be_passed_on:
        raise OptionError(
            f"to={target.form}: it would hold {model.facts.backbone}, and its licence ({model.facts.licence}) does not let it "
            "be passed on; hand on the registered version, which holds the head and a reference (docs/backbones.md)"
        )
    if target.form in {WSINFER, OPENVINO_INT8} and model.facts.takes_features:
        raise OptionError(f"to={target.form}: is for models that take tiles, and this one takes features; give another format")
    if target.form == WSINFER and (model.facts.microns_per_pixel or target.microns_per_pixel) is None:
        raise OptionError(
            f"to={target.form}: WSInfer cuts tiles by their scale, and {model.address} does not know that of its own; give the "
            f"microns_per_pixel of a tile of {model.facts.tile_size_px} px"
        )
    with tempfile.TemporaryDirectory(prefix=f".{target.folder.name}-", dir=target.folder.parent) as draft:
        folder = Path(draft) / target.folder.name
        folder.mkdir()
        if target.form == OPENVINO_INT8:
            found = put_quantized(model, part, folder, "fp32", target.margins)
            agreement = describe_int8(found)
        else:
            found = _convert(model, target, part.tiles, folder)
            agreement = (
                f"all {found['labels_equal']} labels equal, probabilities within {found[_DIFFERENCE]:.1g} of the model's"
            )
        facts = {
            "format": target.form,
            "model": model.address,
            "run_id": model.run_id,
            "classes": list(model.classes),
            "tile_size_px": model.facts.tile_size_px,
            "data_fingerprint": model.facts.data_fingerprint,
            "is_synthetic": model.facts.is_synthetic,
            "output": "logits; their softmax is the probability of each class",
            **found,
            "versions": {"histo-mlflow": histo_mlflow.__version__, "torch": version("torch")} | found.get("versions", {}),
        }
        (folder / "export.json").write_text(json.dumps(facts, indent=2) + "\n")
        folder.rename(target.folder)
    return agreement


def _convert(model: Model, target: Target, tiles: TileSet, folder: Path) -> dict[str, Any]:
    """Write a model to `folder` in full precision, and return how well it agrees with itself."""
    rows = np.unique(np.linspace(0, len(tiles) - 1, _TILES_COMPARED).astype(np.int64))
    images = np.stack([_fitted(tiles.images[row], model.facts.tile_size_px) for row in rows])
    exact = Compute(torch.device("cpu"), is_bf16=False)
    expected = probabilities_of(infer(model.folded, images, compute=exact, description=None))
    known = model.facts.microns_per_pixel or target.microns_per_pixel
    exports.write(model.calibrated(), target.form, folder, classes=model.classes, microns_per_pixel=known)
    found = probabilities_of(exports.open_written(target.form, folder)(images))
    difference = float(np.abs(found - expected).max())
    n_other = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if n_other or not difference <= target.tolerance:
        raise WorkError(
            f"to={target.form}: {n_other} of {len(images)} labels differ from the model's and probabilities by up to "
            f"{difference:.2g} (tolerance {target.tolerance:g}); nothing was written"
        )
    return {
        "compared_on": {"source": tiles.source, "fingerprint": tiles.fingerprint, "n_tiles": len(images)},
        "labels_equal": len(images),
        _DIFFERENCE: difference,
        "tolerance": target.tolerance,
    }


def _fitted(tile: NDArray[Any], size: int) -> NDArray[Any]:
    """Return a tile at an edge length; features as they are."""
    if tile.shape[:2] == (size, size) or tile.ndim == 1:
        return np.asarray(tile)
    return np.asarray(Image.fromarray(tile).resize((size, size), Image.Resampling.BILINEAR))
