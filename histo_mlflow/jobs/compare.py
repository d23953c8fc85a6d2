"""Score two models on the same labelled tiles and say, on one page, what the second has over the first."""

from functools import partial

from histo_mlflow.console import say
from histo_mlflow.evaluation.costs import read_costs
from histo_mlflow.learning.compute import resolve_compute_for_report
from histo_mlflow.options import CompareConfig, flatten
from histo_mlflow.pipeline.compare import check_comparable, compare_models, describe_comparison
from histo_mlflow.pipeline.contents import evaluation_tags, log_config, not_at_the_cost_of_the_model
from histo_mlflow.pipeline.draw import draw_models
from histo_mlflow.pipeline.inputs import announce, load_model
from histo_mlflow.tiles.open import check_source, open_tiles
from histo_mlflow.tiles.tile_set import with_class_order
from histo_mlflow.tracking.acceptance import check_options_accepted
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store


def compare(config: CompareConfig) -> str:
    """Run `compare` and return the id of its run; each model's scoring is a look at the set."""
    check_options_accepted(flatten(config))
    compute = resolve_compute_for_report(config.compute)
    check_source(config.pair.data)
    store = open_store(config.mirror)
    a, b = (load_model(store, address, compute.device) for address in (config.pair.model_a, config.pair.model_b))
    check_comparable(a, b)
    costs = read_costs(config.costs.costs, a.classes)
    tiles = with_class_order(announce(open_tiles(config.pair.data, image_size=a.tile_size_px)), a.classes)
    tags = evaluation_tags("compare", tiles, compute, model=f"{a.address} and {b.address}")
    with open_run(store, "compare", tags=tags) as run:
        log_config(run, flatten(config))
        comparison, about = compare_models(run, a, b, tiles, compute, costs)
        draw_models(run, comparison, about, tiles, partial(not_at_the_cost_of_the_model, run))
    say(f"\n{describe_comparison(comparison)}")
    say(f"models were scored {about.looks} time(s) on this set; page: run {run.id}, comparison/comparison.html (mlflow ui)")
    return run.id
