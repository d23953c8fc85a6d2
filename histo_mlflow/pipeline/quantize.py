"""A model in 8 bits, made once, and used only if the gate's own comparison finds it no worse than the model itself.

Some of the tiles calibrate it; what it says of the others is compared. What it is and what both have said lie in the cache, so
that other margins are answered at once.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.console import say
from histo_mlflow.errors import OptionError, WorkError
from histo_mlflow.evaluation.evidence import Layout
from histo_mlflow.evaluation.gate import ALPHA, judge
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.evaluation.paired import compare_predictions
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.models import exports
from histo_mlflow.models.features import digest_backbone
from histo_mlflow.models.model import Model
from histo_mlflow.models.options import OPENVINO, OPENVINO_INT8
from histo_mlflow.models.quantized import CALIBRATION_TILES, quantize
from histo_mlflow.tiles.cache import cache_key, made_once
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.splits import set_aside
from histo_mlflow.tiles.tile_set import Part

_ARCHIVE, _SAID = "int8.zip", "said.npz"
_MOST_FOR_CALIBRATION = 1 / 3  # of the tiles; the comparison needs more
_SHOWN = ("balanced_accuracy", "accuracy", "log_loss")


def put_quantized(model: Model, part: Part, folder: Path, precision: str, margins: GateOptions) -> dict[str, Any]:
    """Write a model in 8 bits to the empty `folder`, and return from what it was made and how it compares with the model.

    Args:
        model: On the CPU.
        part: Labelled tiles of its own size, with its classes in its order.
        folder: Gets the files that `exports.open_written` opens.
        precision: ``fp32`` or ``bf16``, in which the layers compute that are not in 8 bits.
        margins: How much worse it may be.

    Raises:
        OptionError: The tiles are too few to show it of any model.
        WorkError: It is worse, or not shown not to be.
    """
    if lack := Layout(part.labels, part.classes, part.groups).describe_lack():
        raise OptionError(f"{part.source}: {lack}; give {OPENVINO_INT8} more labelled tiles")
    calibration, compared = set_aside(part, min(_MOST_FOR_CALIBRATION, CALIBRATION_TILES / len(part)), seed=0)
    key = cache_key(OPENVINO_INT8, _digest(model), _describe(part), precision, *_versions().values())

    def make(archive: Path) -> None:
        say(f"{len(calibration)} tiles of {part.source} calibrate, {len(compared)} others are compared ...")
        with scratch_folder() as draft:
            expected = _say_in_full(model, compared, margins)
            _write(model, calibration, compared, draft, precision, expected)
            shutil.make_archive(str(archive.with_suffix("")), "zip", draft)

    shutil.unpack_archive(made_once(key, _ARCHIVE, make, what="the model in 8 bits can't be written"), folder)
    with np.load(folder / _SAID, allow_pickle=False) as said:
        full, small = (_as_predictions(said[name], compared) for name in ("fp32", "int8"))
        n_layers, n_int8 = map(int, said["layers"])
    (folder / _SAID).unlink()
    comparison = compare_predictions(full, small)
    verdict = judge(comparison, margins)
    tiles = {"source": part.source, "fingerprint": part.tiles.fingerprint, "part": part.name}
    facts = {
        "calibrated_on": tiles | {"n_tiles": len(calibration)},
        "compared_on": tiles | {"n_tiles": len(compared)},
        "layers": n_layers,
        "layers_in_8_bits": n_int8,
        **{name: _as_figures(*comparison.values[name]) for name in _SHOWN},
        "verdict": list(verdict.reasons),
        "versions": _versions(),
    }
    if not (n_int8 and verdict.is_passed):
        raise WorkError(
            f"{OPENVINO_INT8} is refused: {describe_int8(facts)}; {verdict.describe()}; nothing was written: use {OPENVINO}, "
            "or give more labelled tiles, or wider margins (--margin)"
        )
    return facts


def _as_figures(full: float, small: float) -> dict[str, float]:
    return {"fp32": full, "int8": small, "difference": small - full}


def _as_predictions(logits: NDArray[np.float32], part: Part) -> Predictions:
    return Predictions(part.labels, probabilities_of(logits), part.classes, part.groups)


def _say_in_full(model: Model, compared: Part, margins: GateOptions) -> NDArray[np.float32]:
    """Return the logits of the model itself, or raise `OptionError` if a model that says just that would not pass."""
    exact = Compute(torch.device("cpu"), is_bf16=False)
    logits = infer(model.folded, compared.tiles.images, rows=compared.rows, compute=exact, description="full precision")
    own = _as_predictions(logits, compared)
    verdict = judge(compare_predictions(own, own), margins)
    if not verdict.is_passed:
        layout = Layout(compared.labels, compared.classes, compared.groups)
        raise OptionError(
            f"{compared.source}: too few labelled tiles for {OPENVINO_INT8}, not even a network that says the same would pass "
            f"({verdict.describe()}); give more, or wider margins; by balanced accuracy alone, "
            f"{layout.describe_need(margins.margin, ALPHA)}"
        )
    return logits


def _write(
    model: Model, calibration: Part, compared: Part, folder: Path, precision: str, expected: NDArray[np.float32]
) -> None:
    """Write a model in 8 bits to `folder`, and beside it what both say of the tiles that are compared."""
    with scratch_folder() as full:
        exports.write(model.calibrated(), OPENVINO, full, classes=model.classes, microns_per_pixel=None)
        layers = quantize(full, folder, calibration.tiles.images[calibration.rows], calibration.labels)
    run = exports.RuntimeNetwork(exports.open_written(OPENVINO_INT8, folder, precision=precision), model.facts.tile_size_px)
    exact = Compute(torch.device("cpu"), is_bf16=False)
    found = infer(run, compared.tiles.images, rows=compared.rows, compute=exact, description="8 bits")
    check_unchanged(compared.tiles.images)  # what is kept would be taken for what is said of these tiles later
    np.savez_compressed(folder / _SAID, fp32=expected, int8=found, layers=np.array([layers.n_all, layers.n_int8]))


def describe_int8(facts: Mapping[str, Any]) -> str:
    """Return in a sentence how a model in 8 bits compares with the model itself."""
    accuracy, compared = facts["balanced_accuracy"], facts["compared_on"]
    return (
        f"balanced accuracy {accuracy['int8']:.4f} in 8 bits, {accuracy['fp32']:.4f} in full precision "
        f"({accuracy['difference']:+.4f}) on {compared['n_tiles']} tiles of {compared['source']}, "
        f"{facts['layers_in_8_bits']} of {facts['layers']} layers in 8 bits"
    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "openvino", "nncf")}


def _digest(model: Model) -> str:
    """Return a SHA-256 of all that the model computes with."""
    network = model.calibrated()
    digest = hashlib.sha256(digest_backbone(network).encode())
    for tensor in (network.head.weight, network.head.bias, network.temperature):
        digest.update(tensor.detach().contiguous().numpy().data)
    return digest.hexdigest()


def _describe(part: Part) -> str:
    """Return what tells these labelled tiles from others."""
    groups = [] if part.groups is None else part.groups.tolist()
    rows = hashlib.sha256(json.dumps([part.rows.tolist(), part.classes, groups]).encode())
    return f"{part.tiles.fingerprint} {rows.hexdigest()}"
