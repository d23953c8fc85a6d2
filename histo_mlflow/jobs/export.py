"""Write a model for another runtime, after what was written has said the same of tiles as the model itself."""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import histo_mlflow
from histo_mlflow.console import say
from histo_mlflow.errors import OptionError, SourceNotFoundError, WorkError
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.models import exports
from histo_mlflow.options import ExportConfig
from histo_mlflow.pipeline.inputs import LoadedModel, load_model
from histo_mlflow.tiles.open import check_given, open_tiles
from histo_mlflow.tracking.runs import begun_run
from histo_mlflow.tracking.store import read_store

_TILES_COMPARED = 64


def export(config: ExportConfig) -> Path:
    """Run `export` and return the folder; it appears when its content was compared with the model.

    Raises:
        WorkError: What was written does not say the same as the model; nothing is left.
    """
    asked = config.export
    check_given(asked.data)
    output = Path(f"exported-{asked.to}" if asked.output in {"", "none"} else asked.output).absolute()
    if output.exists():
        raise OptionError(f"output={output}: exists; name another folder, or move it away")
    if not output.parent.is_dir():
        raise SourceNotFoundError(f"output={output}: the folder {output.parent} does not exist; make it first")
    exports.require(asked.to)
    tiles = open_tiles(asked.data, image_size=0)
    cpu = torch.device("cpu")
    store = read_store()
    model = load_model(store, asked.model, cpu)
    rows = np.unique(np.linspace(0, len(tiles) - 1, _TILES_COMPARED).astype(np.int64))
    images = np.stack([_fitted(tiles.images[row], model.tile_size_px) for row in rows])
    expected = probabilities_of(infer(model.folded, images, compute=Compute(cpu, is_bf16=False), is_quiet=True))
    say(f"writing {asked.to} and comparing it on {len(images)} tiles of {tiles.source} ...")
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as draft:
        folder = Path(draft) / output.name
        folder.mkdir()
        exports.write(
            model.calibrated(), asked.to, folder, classes=model.classes,
            microns_per_pixel=model.facts.microns_per_pixel if model.facts else asked.microns_per_pixel,
        )  # fmt: skip
        found = probabilities_of(exports.open_written(asked.to, folder)(images))
        difference = float(np.abs(found - expected).max())
        n_other = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
        if n_other or not difference <= asked.tolerance:
            raise WorkError(
                f"to={asked.to}: {n_other} of {len(images)} labels differ from the model's and probabilities by up to "
                f"{difference:.2g} (tolerance {asked.tolerance:g}); nothing was written"
            )
        facts = _facts(config, model, tiles.source, tiles.fingerprint, len(images), difference)
        (folder / "export.json").write_text(json.dumps(facts, indent=2) + "\n")
        folder.rename(output)
    if run := begun_run(store):
        run.log_folder(output, output.name)
    kept = f"; kept with run {run.id} too" if run else ""
    say(f"{output}: all {len(images)} labels equal, probabilities within {difference:.1g} of the model's{kept}")
    return output


def _fitted(tile: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if tile.shape[:2] == (size, size):
        return np.asarray(tile)
    return np.asarray(Image.fromarray(tile).resize((size, size), Image.Resampling.BILINEAR))


def _facts(
    config: ExportConfig, model: LoadedModel, source: str, fingerprint: str, n_tiles: int, difference: float
) -> dict[str, object]:
    return {
        "format": config.export.to,
        "model": model.address,
        "run_id": model.run_id,
        "classes": list(model.classes),
        "tile_size_px": model.tile_size_px,
        "data_fingerprint": model.data_fingerprint,
        "is_synthetic": model.is_synthetic,
        "output": "logits; their softmax is the probability of each class",
        "compared_on": {"source": source, "fingerprint": fingerprint, "n_tiles": n_tiles},
        "labels_equal": n_tiles,
        "largest_probability_difference": difference,
        "tolerance": config.export.tolerance,
        "versions": {"histo-mlflow": histo_mlflow.__version__, "torch": version("torch")},
    }
