"""Score a model on labelled tiles and keep tables, figures and a report in a run of its own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from histo_mlflow.evaluation.options import CostOptions, RobustnessOptions
from histo_mlflow.jobs import job
from histo_mlflow.pipeline.options import JudgingOptions, ScoringOptions
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tiles.options import ReadingOptions, ScaleOptions

if TYPE_CHECKING:
    from histo_mlflow.evaluation.metrics import Evaluation


@dataclass(frozen=True, kw_only=True)
class Evaluate(JudgingOptions):
    """Score a model on labelled tiles.

    Tables, figures and a report are kept in a run.
    """

    scoring: ScoringOptions
    reading: ReadingOptions
    scale: ScaleOptions
    costs: CostOptions
    robustness: RobustnessOptions


@dataclass(frozen=True, eq=False)
class EvaluateResult(Shown):
    """What an evaluation has found.

    Attributes:
        run_id: Of its run in MLflow.
        test: Evaluation of the model on the tiles.
        looks: How often models were scored on these tiles, this time included.
    """

    run_id: str
    test: "Evaluation"
    looks: int


@job("Judge", 1, example="histo evaluate --model models:/histo-b3/Production --data test.npz")
def evaluate(options: Evaluate) -> EvaluateResult:
    """Score a model on labelled tiles."""
    from histo_mlflow.base.counting import many
    from histo_mlflow.console import say, warn
    from histo_mlflow.evaluation.costs import read_costs
    from histo_mlflow.pipeline.contents import Beginning
    from histo_mlflow.pipeline.description import Description, describe_end, report_links
    from histo_mlflow.pipeline.inputs import load_model, open_scored_tiles
    from histo_mlflow.pipeline.names import RunName, figure_of, short_data, short_model
    from histo_mlflow.pipeline.scale import at_scale_of, find_caveats
    from histo_mlflow.pipeline.scoring import describe_scores, score_model
    from histo_mlflow.pipeline.session import begin_run, open_judging
    from histo_mlflow.tiles.open import check_source
    from histo_mlflow.tracking.acceptance import check_classes_accepted

    asked = options.scoring
    store, compute = open_judging(options)
    check_source(asked.data)
    model = load_model(store, asked.model, compute.device)
    check_classes_accepted(model.classes, where=model.address)
    costs = read_costs(options.costs.costs, model.classes)
    tiles = open_scored_tiles(asked.data, options.reading, model)
    tiles = at_scale_of(model, tiles, is_rescaled=options.scale.rescale)
    for caveat in find_caveats(model, tiles):
        if caveat.is_grave:
            warn(f"{caveat.words}: the figures will say nothing about new ones")
    name = RunName.of(f"{short_model(asked.model)} on {short_data(asked.data)}", options.naming)
    scored = Beginning.of("evaluate", name, tiles, compute=compute.describe(), model=model.address)
    with begin_run(store, options, scored) as run:
        findings = score_model(run, model, tiles.part("test"), compute, costs, n_tried=options.robustness.robustness)
        name.end(run, figure_of(findings))
        Description.of(findings).put(run, report_links(run, findings))
    looks = findings.about.looks
    say(f"\n{model.address} on {tiles.source}, values with 95 % intervals:\n{describe_scores(findings)}")
    say(f"models were scored {many(looks, 'time')} on this set\n\n{describe_end(run, findings)}")
    return EvaluateResult(run.id, findings.evaluation, looks)
