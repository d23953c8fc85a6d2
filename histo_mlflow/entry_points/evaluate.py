"""Score a model on labelled tiles and keep tables, figures and a report in a run of its own."""

import numpy as np

from histo_mlflow.config import EvaluateConfig, flatten
from histo_mlflow.console import say, warn
from histo_mlflow.experiment import score_network
from histo_mlflow.inputs import announce, load_model
from histo_mlflow.learning.compute import resolve_compute_for_report
from histo_mlflow.recording import log_config, log_split_datasets, record_evaluation
from histo_mlflow.tiles.open import check_source, open_tiles
from histo_mlflow.tiles.tile_set import with_class_order
from histo_mlflow.tracking.looks import count_looks, note_looks
from histo_mlflow.tracking.provenance import describe_origin
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store


def evaluate(config: EvaluateConfig) -> str:
    """Run `evaluate` and return the id of its run."""
    compute = resolve_compute_for_report(config.compute)
    check_source(config.scoring.data)
    store = open_store()
    model = load_model(store, config.scoring.model, compute.device)
    tiles = with_class_order(announce(open_tiles(config.scoring.data, image_size=model.tile_size_px)), model.classes)
    if tiles.fingerprint == model.data_fingerprint:
        warn("the model has learnt from these very tiles: the figures will say nothing about new ones")
    tags = {
        **describe_origin(),
        "histo.entry_point": "evaluate",
        "histo.compute": compute.describe(),
        "histo.model": model.address,
        "histo.data_fingerprint": tiles.fingerprint,
        "histo.synthetic": str(tiles.is_synthetic).lower(),
    }
    rows = np.arange(len(tiles))
    with open_run(store, "evaluate", tags=tags) as run:
        log_config(run, flatten(config))
        log_split_datasets(run, tiles, {"test": rows}, "evaluate")
        scored = score_network(model.network, tiles, compute)
        note_looks(run, tiles.fingerprint, 1)
        looks = count_looks(store, tiles.fingerprint)
        evaluation = record_evaluation(
            run, "test", tiles, rows, scored, selected=model.selected, model=model.describe(), looks=looks
        )
        figures = {name: evaluation.overall[name].value for name in ("accuracy", "balanced_accuracy", "macro_f1")}
        run.log_metrics({"test/loss": scored.loss, **{f"test/{name}": value for name, value in figures.items()}})
    words = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
    say(f"\n{model.address} on {tiles.source}: loss {scored.loss:.4f}, {words}")
    say(f"models were scored {looks} time(s) on this set; report: run {run.id}, evaluation/test/report.html (mlflow ui)")
    return run.id
