"""Two models scored side by side in a run: what `compare` shows, and the gate to Production that decides by it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import compress
from typing import Any

from histo_mlflow.base.escaping import markdown
from histo_mlflow.console import format_table, say, warn
from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.caveats import learnt_from
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.evaluation.evidence import Layout
from histo_mlflow.evaluation.findings import About, Details, Findings
from histo_mlflow.evaluation.gate import METHOD, Ruling, alpha_of_look, first_ruling, judge
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.evaluation.kept_numbers import write_comparison
from histo_mlflow.evaluation.metrics import OVERALL_METRICS, evaluate_predictions
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.evaluation.paired import COMPARED, Comparison, compare_predictions
from histo_mlflow.evaluation.predictions import Predictions, match_classes
from histo_mlflow.evaluation.verdict import Verdict, verdict_of, verdict_on_difference
from histo_mlflow.evaluation.wording import as_json, signed
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.contents import log_datasets
from histo_mlflow.pipeline.description import Description
from histo_mlflow.pipeline.draw import draw_models
from histo_mlflow.pipeline.inputs import check_form, load_model
from histo_mlflow.pipeline.names import RunName
from histo_mlflow.pipeline.report import find_baselines, judge_by_colour
from histo_mlflow.pipeline.scale import at_scale_of, find_caveats
from histo_mlflow.pipeline.split import score_part
from histo_mlflow.tiles.tile_set import TileSet, with_class_order
from histo_mlflow.tracking.addresses import run_page
from histo_mlflow.tracking.bars import BAR, Bar, write_bar
from histo_mlflow.tracking.decisions import PROMOTED, REFUSED, Decision, carry_out
from histo_mlflow.tracking.found_runs import count_looks, note_looks
from histo_mlflow.tracking.pages import version_page
from histo_mlflow.tracking.runs import Run

COMPARISON_PAGE = "comparison/comparison.html"
COMPARISON_TAG = "histo.comparison"
"""The verdict on two models; a training whose version passes the gate keeps its own verdict beside it."""


def check_comparable(a: Model, b: Model) -> None:
    """Raise `RequestError` unless both models know the same classes."""
    if sorted(a.classes) != sorted(b.classes):
        raise RequestError(
            f"{a.address} knows {' '.join(a.classes)}, {b.address} knows {' '.join(b.classes)}: models of different classes "
            "can't be compared"
        )


@dataclass(frozen=True, eq=False)
class Compared:
    """Two models side by side, and what is to be thought of them.

    Attributes:
        comparison: Figures of both and their differences.
        about: What was compared.
        ruling: Of the gate: whether B may replace A.
        verdicts: On the difference, on A and on B.
    """

    comparison: Comparison
    about: About
    ruling: Ruling
    verdicts: tuple[Verdict, Verdict, Verdict]


def compare_models(
    run: Run,
    models: tuple[Model, Model],
    views: Sequence[TileSet],
    compute: Compute,
    *,
    costs: Floats | None = None,
    rule: Callable[[Comparison], Ruling] = first_ruling,
) -> Compared:
    """Score both models on the same tiles, keep tables and metrics in `run`, and return what its page is drawn from.

    Each model's scoring is a look. `views` are the tiles as each of the two sees them, with the classes of the first model in
    its order. `rule` says whether the second may replace the first; by default as the gate would in a first decision.
    """
    a = models[0]
    tiles = views[0]
    has_learnt = [tiles.fingerprint == model.facts.data_fingerprint for model in models]
    for model in compress(models, has_learnt):
        warn(f"{learnt_from(model.address).words}: the comparison is unfair")
    log_datasets(run, [tiles.part("test")], "compare")
    said = [_predict(model, view, a.classes, compute) for model, view in zip(models, views, strict=True)]
    note_looks(run, tiles.fingerprint, run.noted_looks() + len(said))
    looks = count_looks(run.store, tiles.fingerprint)
    comparison = compare_predictions(*said, costs=costs)
    about = About.of(tiles.part("test"), *(model.describe() for model in models), looks=looks)
    ruling = rule(comparison)
    # That A alone has seen the tiles speaks against B: what B wins in spite of it counts.
    is_in_spite = ruling.is_passed and not has_learnt[1]
    grave = [] if is_in_spite else [learnt_from(letter).words for letter in compress("AB", has_learnt)]
    of_a, of_b = (
        _verdict_on(run, model, view, predictions, looks) for model, view, predictions in zip(models, views, said, strict=True)
    )
    verdicts = (verdict_on_difference(comparison, ruling, grave), of_a, of_b)
    with run.draft("comparison") as folder:
        write_comparison(folder, comparison, about, verdicts, tiles.given_names)
    run.set_tags({COMPARISON_TAG: verdicts[0].describe()})
    run.log_metrics(
        {f"difference/{name}": figure.value for name, figure in comparison.differences.items() if figure.is_defined}
    )
    return Compared(comparison, about, ruling, verdicts)


def show_comparison(run: Run, name: RunName, compared: Compared) -> None:
    """Put the verdict on two models where `mlflow ui` shows it, and the difference into the name of the run."""
    comparison, (verdict, *of_each) = compared.comparison, compared.verdicts
    difference = comparison.differences["balanced_accuracy"]
    figures = ", ".join(
        f"{OVERALL_METRICS[figure].words.lower()} {signed(comparison.differences[figure])}"
        for figure in ("balanced_accuracy", "log_loss")
    )
    said = [f"- {letter}: {markdown(each.describe())}" for letter, each in zip("AB", of_each, strict=True)]
    more = ["\n".join(said), f"Next: {markdown(verdict.next_step)}"]
    described = Description(verdict.describe(), f"B minus A: {figures}", more)
    described.put(run, {"Page": run_page(run, COMPARISON_PAGE)})
    name.end(run, f"{difference.value:+.3f}")


def _verdict_on(run: Run, model: Model, view: TileSet, said: Predictions, looks: int) -> Verdict:
    """Return what is to be thought of one of two models that are scored on the same tiles."""
    part = view.part("test")
    costs = default_costs(said.classes)
    _, of_colour = judge_by_colour(run, partial(find_baselines, run.store, model.run_id, said.classes), part, costs)
    details = Details(baselines=of_colour, caveats=find_caveats(model, view))
    return verdict_of(Findings(evaluate_predictions(said), part.rows, About.of(part, model.describe(), looks=looks), details))


def _predict(model: Model, tiles: TileSet, classes: tuple[str, ...], compute: Compute) -> Predictions:
    own = with_class_order(tiles, model.classes)
    probabilities = probabilities_of(score_part(model.folded, own.part("test"), compute).logits)
    return Predictions(tiles.labels, match_classes(probabilities, model.classes, classes), classes, tiles.groups)


def describe_compared(compared: Compared) -> str:
    """Return the verdict, what is to be thought of each model, and the comparison."""
    both, of_a, of_b = compared.verdicts
    said = f"{both.describe()}\n  A: {of_a.describe()}\n  B: {of_b.describe()}\n  next: {both.next_step}"
    return f"{said}\n\n{describe_comparison(compared.comparison)}"


def describe_comparison(comparison: Comparison) -> str:
    """Return both models' figures and their differences as a table with a sentence on the test of equal accuracy."""
    rows = []
    for name in COMPARED:
        of_a, of_b = comparison.values[name]
        difference = comparison.differences[name]
        interval = f"{difference.low:+.4f} to {difference.high:+.4f}" if difference.has_interval else "none"
        rows.append([OVERALL_METRICS[name].words, f"{of_a:.4f}", f"{of_b:.4f}", f"{difference.value:+.4f}", interval])
    table = format_table(["figure", "A", "B", "B - A", "95 % interval"], rows)
    return (
        f"{table}\nonly A right: {comparison.only_a} tiles, only B right: {comparison.only_b}; {comparison.test}: "
        f"p = {comparison.p_value:.3g}"
    )


@dataclass(frozen=True)
class Candidacy:
    """A version of a registered model that is to replace another, the incumbent."""

    name: str
    version: str
    incumbent: str


def pass_gate(
    run: Run, candidacy: Candidacy, tiles: TileSet, compute: Compute, options: GateOptions, *, is_rescaled: bool = False
) -> Decision:
    """Compare a version with the incumbent on `tiles`, promote it or refuse it, and return the decision.

    The bar is written down before anything is scored. The figures, the page of the comparison and ``decision.json`` are kept in
    `run`, the decision on the registered model too. A set that can't decide is not looked at, nor one of another scale than a
    model's, unless the models are to see the middle of its tiles.
    """
    name, version, incumbent = candidacy.name, candidacy.version, candidacy.incumbent
    old, new = (load_model(run.store, f"models:/{name}/{each}", compute.device) for each in (incumbent, version))
    check_comparable(old, new)
    tiles = with_class_order(tiles, old.classes)
    layout = Layout(tiles.labels, tiles.classes, tiles.groups)
    try:
        for model in (old, new):
            check_form(tiles.form, model, where=tiles.source)
        views = [at_scale_of(model, tiles, is_rescaled=is_rescaled) for model in (old, new)]
        lack = layout.describe_lack()
    except RequestError as error:
        lack = str(error)
    if lack:
        decision = Decision(REFUSED, version, incumbent, f"{tiles.source}: {lack}; nothing was scored", run=run.id)
        keep_decision(run, name, decision)
        return decision
    bar, kept_bar = _set_bar(run, candidacy, tiles.fingerprint, options)
    say(f"decision {bar.look} on this set: its error may be {bar.alpha:.3%}, as much is left for all later ones")
    say(layout.describe_need(options.margin, bar.alpha))
    compared = compare_models(run, (old, new), views, compute, rule=partial(judge, options=options, alpha=bar.alpha))
    say(compared.verdicts[0].describe())
    evidence = {
        "test_data": tiles.source,
        "test_data_fingerprint": tiles.fingerprint,
        "n_tiles": len(tiles),
        "looks": compared.about.looks,
        "differences": {figure: as_json(value) for figure, value in compared.comparison.differences.items()},
        "verdict": compared.verdicts[0].sentence,
        BAR: kept_bar,
        "incumbent_learnt_from_these_tiles": tiles.fingerprint == old.facts.data_fingerprint,
    }
    what = PROMOTED if compared.ruling.is_passed else REFUSED
    decision = Decision(what, version, incumbent, compared.ruling.describe(), run=run.id, evidence=evidence)
    keep_decision(run, name, decision)
    draw_models(run, compared.comparison, compared.about, compared.verdicts, tiles)
    return decision


def _set_bar(run: Run, candidacy: Candidacy, fingerprint: str, options: GateOptions) -> tuple[Bar, dict[str, Any]]:
    def make_bar(look: int) -> Bar:
        asked = asdict(options)
        return Bar(candidacy.version, candidacy.incumbent, fingerprint, asked, METHOD, look, alpha_of_look(look))

    bar, kept = write_bar(run.store, candidacy.name, fingerprint, make_bar)
    run.set_tags({"histo.bar_sha256": kept["sha256"]})
    return bar, kept


def keep_decision(run: Run, name: str, decision: Decision) -> None:
    """Carry the decision out and keep it in `run` as ``decision.json``."""
    carry_out(run.store, name, decision)
    run.write("decision.json", json.dumps({"model_name": name, **asdict(decision)}, indent=2) + "\n")
    run.set_tags({"histo.decision": decision.what, "histo.decided_version": decision.version})


def show_decision(run: Run, name: str, decision: Decision) -> None:
    """Put a decision where `mlflow ui` shows its run."""
    first, *reasons = (line.strip() for line in describe_decision(name, decision).splitlines())
    links = {f"Model {name} version {decision.version}": version_page(name, decision.version)}
    if run.has_file(COMPARISON_PAGE):
        links["Page"] = run_page(run, COMPARISON_PAGE)
    Description(first, more=["\n".join(f"- {markdown(reason)}" for reason in reasons)]).put(run, links)


def describe_decision(name: str, decision: Decision) -> str:
    """Return what was decided and why, in two or three lines."""
    before = f", was version {decision.incumbent}" if decision.incumbent else ""
    head = {
        REFUSED: f"REFUSED: version {decision.version} of {name}; Production stays version {decision.incumbent}",
    }.get(decision.what, f"{decision.what}: version {decision.version} of {name} is now in Production{before}")
    return f"{head}\n  " + "\n  ".join(decision.reason.split("; "))
