"""An audit from its request to its findings: opens tiles, features and predictions, and hands them to the checks."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.checks import find_all, look_at
from histo_mlflow.auditing.finding import CLEAR, UNASKED
from histo_mlflow.auditing.result import Audit
from histo_mlflow.console import format_table, warn
from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.learning.compute import resolve_compute_for_report, seed_everything
from histo_mlflow.learning.options import ComputeOptions
from histo_mlflow.models.options import NetworkOptions
from histo_mlflow.models.weights import make_network
from histo_mlflow.options import stated
from histo_mlflow.pipeline.features import stored_features
from histo_mlflow.pipeline.inputs import announce, open_weights
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import DataOptions
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.kept import kept_run
from histo_mlflow.tracking.runs import Run
from histo_mlflow.tracking.store import read_store


def open_audited(asked: DataOptions, image_size: int) -> list[TileSet]:
    """Return the tiles of `data`, and of `test_data` if it is named, and say what they are; raises as `open_tiles`.

    Raises:
        RequestError: There is one tile only.
    """
    sets = [announce(open_tiles(asked.data, image_size=image_size, reading=asked.reading))]
    if source := stated(asked.test_data):
        sets.append(announce(open_tiles(source, image_size=image_size, reading=asked.test_reading)))
    if len(sets[0]) == 1:
        raise RequestError(f"{sets[0].source} has one tile; there is nothing to compare it with")
    return sets


def audit_tiles(sets: list[TileSet], features: NDArray[np.float32] | None, predictions: Predictions | None, seed: int) -> Audit:
    """Return what is found in one set or two."""
    subject = look_at(*sets, features=features, predictions=predictions, seed=seed)
    return Audit(subject, find_all(subject))


def features_for_audit(sets: list[TileSet], network: NetworkOptions, compute: ComputeOptions, seed: int) -> NDArray[np.float32]:
    """Return what a frozen backbone makes of all tiles, ``(n_tiles, n_features)``, from the cache if it is there."""
    resolved = resolve_compute_for_report(compute)
    is_synthetic = sets[0].is_synthetic
    initial = open_weights(network, is_synthetic=is_synthetic)
    if is_synthetic:
        warn("features of demo tiles come from random weights: they find little")
    found = []
    for tiles in sets:
        seed_everything(seed)  # of random weights
        made, _ = make_network(initial, classes=tiles.classes, tile_size_px=network.image_size or tiles.tile_size_px)
        found.append(stored_features(made.to(resolved.device).eval(), tiles, resolved))
    return np.concatenate(found)


def predictions_of(run_id: str, tiles: TileSet) -> Predictions:
    """Return the out-of-fold predictions that a cross-validation has kept; raises `RequestError` if it was of other tiles."""
    store = read_store()
    tags = kept_run(store.client, run_id, asked=f"run={run_id}").data.tags
    if tags.get("histo.data_fingerprint") != tiles.fingerprint:
        raise RequestError(
            f"run={run_id} has learnt from other tiles than {tiles.source}; give the data that it was begun with"
        )
    run, artifact = Run(store, run_id), "evaluation/oof/predictions.npz"
    if not run.has_file(artifact):
        raise RequestError(f"run={run_id} has no {artifact}; give the run of a `cv` that has finished")

    def read(file: Path) -> Predictions:
        with np.load(file, allow_pickle=False) as kept:
            order = np.argsort(kept["indices"])
            return Predictions(tiles.labels, kept["probabilities"][order].astype(np.float64), tiles.classes, tiles.groups)

    return run.read(artifact, read)


def describe_audit(done: Audit) -> str:
    """Return the findings as a table, and what was looked for in vain in a line."""
    found = [each for each in done.findings if each.severity not in (CLEAR, UNASKED)]
    rows = [[each.title, each.severity, str(each.n) if each.n else ""] for each in found]
    table = format_table(["finding", "severity", "tiles"], rows) if rows else "nothing was found"
    unasked = "".join(f"\n{each.title}: {each.summary}" for each in done.findings if each.severity == UNASKED)
    return f"{table}\nlooked for and not found: {done.count(CLEAR)} more{unasked}"
