"""Score two models on the same labelled tiles and say, on one page, what the second has over the first."""

import tempfile
from pathlib import Path

import numpy as np

from histo_mlflow.config import CompareConfig, flatten
from histo_mlflow.console import format_table, say, warn
from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.comparison import COMPARED, Comparison, compare_predictions
from histo_mlflow.evaluation.comparison_page import OfModels, write_comparison
from histo_mlflow.evaluation.costs import read_costs
from histo_mlflow.evaluation.metrics import Predictions, match_classes
from histo_mlflow.evaluation.wording import OVERALL_NAMES
from histo_mlflow.experiment import score_network
from histo_mlflow.inputs import LoadedModel, announce, load_model
from histo_mlflow.learning.compute import Compute, resolve_compute_for_report
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.run_contents import evaluation_tags, log_config, log_split_datasets
from histo_mlflow.tiles.open import check_source, open_tiles
from histo_mlflow.tiles.tile_set import TileSet, with_class_order
from histo_mlflow.tracking.looks import count_looks, note_looks
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store


def compare(config: CompareConfig) -> str:
    """Run `compare` and return the id of its run; each model's scoring is a look at the set."""
    compute = resolve_compute_for_report(config.compute)
    check_source(config.pair.data)
    store = open_store()
    a, b = (load_model(store, address, compute.device) for address in (config.pair.model_a, config.pair.model_b))
    if sorted(a.classes) != sorted(b.classes):
        raise RequestError(
            f"{a.address} knows {' '.join(a.classes)}, {b.address} knows {' '.join(b.classes)}: models of different classes "
            "can't be compared"
        )
    costs = read_costs(config.costs.costs, a.classes)
    tiles = with_class_order(announce(open_tiles(config.pair.data, image_size=a.tile_size_px)), a.classes)
    for model in (a, b):
        if tiles.fingerprint == model.data_fingerprint:
            warn(f"{model.address} has learnt from these very tiles: the comparison is unfair")
    rows = np.arange(len(tiles))
    tags = evaluation_tags("compare", tiles, compute, model=f"{a.address} and {b.address}")
    with open_run(store, "compare", tags=tags) as run:
        log_config(run, flatten(config))
        log_split_datasets(run, tiles, {"test": rows}, "compare")
        said = [_predict(model, tiles, a.classes, compute) for model in (a, b)]
        note_looks(run, tiles.fingerprint, len(said))
        looks = count_looks(store, tiles.fingerprint)
        comparison = compare_predictions(*said, costs=costs)
        about = OfModels(a.describe(), b.describe(), tiles.source, tiles.fingerprint, looks, tiles.is_synthetic)
        with tempfile.TemporaryDirectory(prefix="histo-") as draft:
            write_comparison(Path(draft), comparison, tiles.images, about)
            run.log_folder(Path(draft), "comparison")
        for name, figure in comparison.differences.items():
            run.log_metrics({f"difference/{name}": figure.value})
    say(f"\n{describe(comparison)}")
    say(f"models were scored {looks} time(s) on this set; page: run {run.id}, comparison/comparison.html (mlflow ui)")
    return run.id


def _predict(model: LoadedModel, tiles: TileSet, classes: tuple[str, ...], compute: Compute) -> Predictions:
    own = with_class_order(tiles, model.classes)
    probabilities = probabilities_of(score_network(model.network, own, compute).logits)
    return Predictions(tiles.labels, match_classes(probabilities, model.classes, classes), classes, tiles.groups)


def describe(comparison: Comparison) -> str:
    """Return both models' figures and their differences as a table with a sentence on McNemar's test."""
    rows = []
    for name in COMPARED:
        of_a, of_b = comparison.values[name]
        difference = comparison.differences[name]
        interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
        rows.append([OVERALL_NAMES[name], f"{of_a:.4f}", f"{of_b:.4f}", f"{difference.value:+.4f}", interval])
    table = format_table(["figure", "A", "B", "B - A", "95 % interval"], rows)
    return (
        f"{table}\nonly A right: {comparison.only_a} tiles, only B right: {comparison.only_b}; McNemar's exact test: "
        f"p = {comparison.p_value:.3g}"
    )
