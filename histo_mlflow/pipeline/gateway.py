"""The gate to Production: a candidate is compared with the version in use on one labelled set, and the decision is kept."""

import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from histo_mlflow.console import say
from histo_mlflow.evaluation.evidence import Layout
from histo_mlflow.evaluation.gate import METHOD, alpha_of_look, judge
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.evaluation.wording import as_json
from histo_mlflow.learning.compute import Compute
from histo_mlflow.pipeline.compare import check_comparable, compare_models
from histo_mlflow.pipeline.contents import not_at_the_cost_of_the_model
from histo_mlflow.pipeline.draw import draw_models
from histo_mlflow.pipeline.inputs import load_model
from histo_mlflow.tiles.tile_set import TileSet, with_class_order
from histo_mlflow.tracking.bars import BAR, Bar, write_bar
from histo_mlflow.tracking.decisions import PROMOTED, REFUSED, Decision, carry_out
from histo_mlflow.tracking.runs import Run


@dataclass(frozen=True)
class Candidacy:
    """A version of a registered model that is to replace another, the incumbent."""

    name: str
    version: str
    incumbent: str


def pass_gate(run: Run, candidacy: Candidacy, tiles: TileSet, compute: Compute, options: GateOptions) -> Decision:
    """Compare a version with the incumbent on `tiles`, promote it or refuse it, and return the decision.

    The bar is written down before anything is scored. The figures, the page of the comparison and ``decision.json`` are kept in
    `run`, the decision on the registered model too. A set that can't decide is not looked at.
    """
    name, version, incumbent = candidacy.name, candidacy.version, candidacy.incumbent
    old, new = (load_model(run.store, f"models:/{name}/{each}", compute.device) for each in (incumbent, version))
    check_comparable(old, new)
    tiles = with_class_order(tiles, old.classes)
    layout = Layout(tiles.labels, tiles.classes, tiles.groups)
    if lack := layout.describe_lack():
        decision = Decision(REFUSED, version, incumbent, f"{tiles.source}: {lack}; nothing was scored", run=run.id)
        keep_decision(run, name, decision)
        return decision
    bar, kept_bar = _set_bar(run, candidacy, tiles.fingerprint, options)
    say(f"decision {bar.look} on this set: its error may be {bar.alpha:.3%}, as much is left for all later ones")
    say(layout.describe_need(options.margin, bar.alpha))
    comparison, about = compare_models(run, (old, new), tiles, compute)
    verdict = judge(comparison, options, bar.alpha)
    evidence = {
        "test_data": tiles.source,
        "test_data_fingerprint": tiles.fingerprint,
        "n_tiles": len(tiles),
        "looks": about.looks,
        "differences": {figure: as_json(value) for figure, value in comparison.differences.items()},
        BAR: kept_bar,
        "incumbent_learnt_from_these_tiles": tiles.fingerprint == old.facts.data_fingerprint,
    }
    what = PROMOTED if verdict.is_passed else REFUSED
    decision = Decision(what, version, incumbent, verdict.describe(), run=run.id, evidence=evidence)
    keep_decision(run, name, decision)
    draw_models(run, comparison, about, tiles, partial(not_at_the_cost_of_the_model, run))
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


def describe_decision(name: str, decision: Decision) -> str:
    """Return what was decided and why, in two or three lines."""
    before = f", was version {decision.incumbent}" if decision.incumbent else ""
    head = {
        REFUSED: f"REFUSED: version {decision.version} of {name}; Production stays version {decision.incumbent}",
    }.get(decision.what, f"{decision.what}: version {decision.version} of {name} is now in Production{before}")
    return f"{head}\n  " + "\n  ".join(decision.reason.split("; "))
