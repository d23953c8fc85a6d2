"""Score a model on labelled tiles and keep tables, figures and a report in a run of its own."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.console import say, warn
from histo_mlflow.evaluation.costs import read_costs
from histo_mlflow.evaluation.details import Details
from histo_mlflow.evaluation.findings import baseline_figures
from histo_mlflow.evaluation.intervals import Figure
from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.evaluation.wording import in_words
from histo_mlflow.learning.compute import Compute, resolve_compute_for_report
from histo_mlflow.learning.infer import infer
from histo_mlflow.options import EvaluateConfig, flatten
from histo_mlflow.pipeline.contents import evaluation_tags, log_config, log_split_datasets, not_at_the_cost_of_the_model
from histo_mlflow.pipeline.draw import Drawable, draw
from histo_mlflow.pipeline.inputs import LoadedModel, announce, load_model
from histo_mlflow.pipeline.report import (
    apply_baselines,
    count_classes,
    describe_provenance,
    find_baselines,
    predictions_of,
    record_findings,
)
from histo_mlflow.pipeline.robustness import choose_tiles, probe
from histo_mlflow.pipeline.split import score_network
from histo_mlflow.tiles.open import check_source, open_tiles
from histo_mlflow.tiles.tile_set import TileSet, with_class_order
from histo_mlflow.tracking.acceptance import check_classes_accepted, check_options_accepted
from histo_mlflow.tracking.looks import count_looks, note_looks
from histo_mlflow.tracking.runs import Run, open_run
from histo_mlflow.tracking.store import open_store

_SHOWN = ("balanced_accuracy", "accuracy", "macro_f1", "log_loss")


def evaluate(config: EvaluateConfig) -> str:
    """Run `evaluate` and return the id of its run."""
    check_options_accepted(flatten(config))
    compute = resolve_compute_for_report(config.compute)
    check_source(config.scoring.data)
    store = open_store(config.mirror)
    model = load_model(store, config.scoring.model, compute.device)
    check_classes_accepted(model.classes, where=model.address)
    costs = read_costs(config.costs.costs, model.classes)
    tiles = with_class_order(announce(open_tiles(config.scoring.data, image_size=model.tile_size_px)), model.classes)
    if tiles.fingerprint == model.data_fingerprint:
        warn("the model has learnt from these very tiles: the figures will say nothing about new ones")
    rows = np.arange(len(tiles))
    with open_run(store, "evaluate", tags=evaluation_tags("evaluate", tiles, compute, model=model.address)) as run:
        log_config(run, flatten(config))
        log_split_datasets(run, tiles, {"test": rows}, "evaluate")
        scored = score_network(model.folded, tiles, compute)
        note_looks(run, tiles.fingerprint, 1)
        looks = count_looks(store, tiles.fingerprint)
        predictions = predictions_of(scored, tiles, rows)
        about = describe_provenance("test", tiles, model.describe(), model.selected, looks=looks)
        details = _collect(run, model, tiles, rows, compute, config, costs)
        findings = record_findings(run, predictions, rows, about, details)
        overall = findings.evaluation.overall
        figures = {f"test/{name}": overall[name].value for name in ("accuracy", "balanced_accuracy", "macro_f1")}
        run.log_metrics({"test/loss": scored.loss, **figures})
        drawable = Drawable(run, [findings], network=model.unpacked, device=compute.device)
        draw(drawable, {"test": tiles}, partial(not_at_the_cost_of_the_model, run))
    words = "\n".join(f"  {name.replace('_', ' '):18s} {in_words(overall[name])}" for name in _SHOWN)
    say(f"\n{model.address} on {tiles.source}, values with 95 % intervals:\n{words}")
    say(f"models were scored {looks} time(s) on this set; report: run {run.id}, evaluation/test/report.html (mlflow ui)")
    return run.id


def _collect(
    run: Run,
    model: LoadedModel,
    tiles: TileSet,
    rows: NDArray[np.int64],
    compute: Compute,
    config: EvaluateConfig,
    costs: NDArray[np.float64],
) -> Details:
    facts = model.facts
    flow = {} if facts is None else {part: np.array(counts) for part, counts in facts.tiles_per_class.items()}
    robustness: list[Perturbed] = []
    if n_tiles := config.robustness.robustness:
        with not_at_the_cost_of_the_model(run, "the robustness protocol", then="The report goes without it."):
            tried = choose_tiles(tiles, n_tiles)
            robustness = probe(
                tiles, tried, lambda images: infer(model.folded, images, compute=compute, is_quiet=True).argmax(axis=1)
            )
    of_colour: dict[str, dict[str, Figure]] = {}
    with not_at_the_cost_of_the_model(run, "what colour alone tells", then="The report goes without it."):
        baselines = [] if model.run_id is None else find_baselines(Run(run.store, model.run_id), tiles.classes)
        of_colour = baseline_figures(apply_baselines(baselines, tiles, rows), costs)
    return Details(
        flow=flow | count_classes(tiles, {"test": rows}),
        split_unit="not known" if facts is None else facts.split_unit,
        temperature=None if facts is None else facts.temperature,
        is_calibrated=facts is not None and facts.is_calibrated,
        threshold=None if facts is None else facts.abstain_below,
        costs=costs,
        robustness=robustness,
        baselines=of_colour,
    )
