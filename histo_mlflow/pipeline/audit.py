"""An audit from its request to its findings: opens tiles, features and predictions, and hands them to the checks."""

from pathlib import Path
import numpy as np

from histo_mlflow.audit.checks import find_all, look_at
from histo_mlflow.audit.finding import CLEAR, UNASKED
from histo_mlflow.audit.result import Audit
from histo_mlflow.console import format_table, warn
from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.learning.compute import resolve_compute_for_report, seed_everything
from histo_mlflow.models.options import NetworkOptions
from histo_mlflow.models.weights import make_network
from histo_mlflow.options import stated
from histo_mlflow.pipeline.features import stored_features
from histo_mlflow.pipeline.inputs import announce, open_weights
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.kept import kept_run
from histo_mlflow.tracking.runs import Run
from histo_mlflow.tracking.store import read_store

if TYPE_CHECKING:
    from histo_mlflow.jobs.audit import Audit as AuditOptions

_FEWEST_BETWEEN = 2  # tiles without which no neighbour and no fold is to be had


def audit_tiles(options: "AuditOptions") -> Audit:
    """Return what is found; whatever is wrong with the request is found before anything takes long.

    Raises:
        RequestError: The tiles can't be read, are too few, or are not those of the run.
    """
    sources = [options.data, *([source] if (source := stated(options.test_data)) else [])]
    sets = [announce(open_tiles(source, image_size=options.image_size)) for source in sources]
    if len(sets[0]) < _FEWEST_BETWEEN:
        raise RequestError(f"{sets[0].source} has one tile; there is nothing to compare it with")
    predictions = _predictions_of(options.run, sets[0]) if stated(options.run) else None
    features = None
    if backbone := stated(options.backbone):
        features = np.concatenate([_features(tiles, backbone, options) for tiles in sets])
    subject = look_at(*sets, features=features, predictions=predictions, seed=options.seed.seed)
    return Audit(subject, find_all(subject))


def _features(tiles: TileSet, backbone: str, options: "AuditOptions") -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    network = NetworkOptions(backbone=backbone, image_size=options.image_size)
    compute = resolve_compute_for_report(options.compute)
    initial = open_weights(network, is_synthetic=tiles.is_synthetic)
    seed_everything(options.seed.seed)  # of random weights
    made, _ = make_network(initial, classes=tiles.classes, tile_size_px=options.image_size or tiles.tile_size_px)
    if tiles.is_synthetic:
        warn("features of demo tiles come from random weights: they find little")
    return stored_features(made.to(compute.device).eval(), tiles, compute)


def _predictions_of(run_id: str, tiles: TileSet) -> Predictions:
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
    return f"{table}\n{done.count(CLEAR)} more were looked for and not found{unasked}"
