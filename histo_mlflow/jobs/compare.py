"""Score two models on the same labelled tiles and say, on one page, by how much the second is better or worse."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from histo_mlflow.evaluation.options import CostOptions
from histo_mlflow.jobs import job
from histo_mlflow.options import MODEL, option
from histo_mlflow.pipeline.options import JudgingOptions
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tiles.options import ReadingOptions, ScaleOptions, given_tiles
from histo_mlflow.tracking.options import PRODUCTION

if TYPE_CHECKING:
    from histo_mlflow.evaluation.paired import Comparison


@dataclass(frozen=True, kw_only=True)
class Compare(JudgingOptions):
    """Score two models on the same labelled tiles.

    Reports by how much MODEL_B is better or worse than MODEL_A, with intervals, and where they disagree.
    """

    model_a: str = option(PRODUCTION, "The model to compare with, as `evaluate --model`.", positional=True, names=MODEL)
    model_b: str = option("models:/histo-b3@candidate", "The model that is compared with it.", positional=True, names=MODEL)
    data: str = given_tiles("Labelled tiles, as in `train --data`; must be given.")
    reading: ReadingOptions
    scale: ScaleOptions
    costs: CostOptions


@dataclass(frozen=True, eq=False)
class CompareResult(Shown):
    """What a comparison has found.

    Attributes:
        run_id: Of its run in MLflow.
        comparison: Figures of both models and their differences, with intervals.
        looks: How often models were scored on these tiles, these two times included.
    """

    run_id: str
    comparison: "Comparison"
    looks: int


@job("Judge", 2, example="histo compare --data test.npz")
def compare(options: Compare) -> CompareResult:
    """Score two models on the same tiles; each model's scoring is a look at the set."""
    from histo_mlflow.base.counting import many
    from histo_mlflow.console import say
    from histo_mlflow.evaluation.costs import read_costs
    from histo_mlflow.pipeline.compare import (
        COMPARISON_PAGE,
        check_comparable,
        compare_models,
        describe_compared,
        show_comparison,
    )
    from histo_mlflow.pipeline.contents import Beginning
    from histo_mlflow.pipeline.description import describe_place
    from histo_mlflow.pipeline.draw import draw_models
    from histo_mlflow.pipeline.inputs import check_form, load_model, open_scored_tiles
    from histo_mlflow.pipeline.names import RunName, short_data, short_model
    from histo_mlflow.pipeline.scale import at_scale_of
    from histo_mlflow.pipeline.session import begin_run, open_judging
    from histo_mlflow.tiles.open import check_source

    store, compute = open_judging(options)
    check_source(options.data)
    a, b = (load_model(store, address, compute.device) for address in (options.model_a, options.model_b))
    check_comparable(a, b)
    costs = read_costs(options.costs.costs, a.classes)
    tiles = open_scored_tiles(options.data, options.reading, a)
    check_form(tiles.form, b, where=tiles.source)
    views = [at_scale_of(model, tiles, is_rescaled=options.scale.rescale) for model in (a, b)]
    made = f"{short_model(options.model_a)} or {short_model(options.model_b)} on {short_data(options.data)}"
    name, both = RunName.of(made, options.naming), f"{a.address} and {b.address}"
    with begin_run(store, options, Beginning.of("compare", name, tiles, compute=compute.describe(), models=both)) as run:
        compared = compare_models(run, (a, b), views, compute, costs=costs)
        about = compared.about
        draw_models(run, compared.comparison, about, compared.verdicts, tiles)
        show_comparison(run, name, compared)
    say(f"\n{describe_compared(compared)}")
    say(f"models were scored {many(about.looks, 'time')} on this set")
    say(f"\n{describe_place(run, COMPARISON_PAGE, compared.verdicts[0].next_step)}")
    return CompareResult(run.id, compared.comparison, about.looks)
