"""Decide whether a version goes to Production: by comparison with the one in use, or by force with a reason."""

from histo_mlflow.console import say
from histo_mlflow.errors import OptionError, RequestError, WorkError
from histo_mlflow.learning.compute import resolve_compute_for_report
from histo_mlflow.options import PromoteConfig, flatten
from histo_mlflow.pipeline.contents import log_config
from histo_mlflow.pipeline.gateway import describe_decision, keep_decision, pass_gate
from histo_mlflow.pipeline.inputs import announce
from histo_mlflow.tiles.open import check_source, open_tiles
from histo_mlflow.tracking.acceptance import check_options_accepted
from histo_mlflow.tracking.decisions import FIRST, FORCED, REFUSED, Decision, complete
from histo_mlflow.tracking.production import read_pointers
from histo_mlflow.tracking.provenance import describe_origin
from histo_mlflow.tracking.registry import ask_to_register, find_version
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store


def promote(config: PromoteConfig) -> None:
    """Run `promote`; a refusal is a `WorkError`, so that scripts can tell."""
    check_options_accepted(flatten(config))
    compute = resolve_compute_for_report(config.compute)
    choice, name, stated = config.choice, config.name.model_name, config.why.stated_reason
    has_tiles = choice.test_data not in {"", "none"}
    if choice.force and not stated:
        raise OptionError("force needs a reason that others can read later: --reason 'why'")
    store = open_store(config.mirror)
    version = find_version(store, name, version=choice.version, run_id=choice.run)
    completed = complete(store, name)
    if completed is not None and completed.version == version and completed.moves_production:  # this very command, given again
        say(describe_decision(name, completed))
        return
    pointers = read_pointers(store.client, name)
    if not pointers.agree and not choice.force:
        raise RequestError(pointers.describe_disagreement())
    incumbent = pointers.version
    if incumbent == version and pointers.agree:
        raise RequestError(f"{name}: version {version} is in Production already")
    if incumbent is not None and not choice.force and not has_tiles:
        raise OptionError(
            f"version {incumbent} of {name} is in Production, and only a comparison replaces it: give --test-data SET, or "
            "--force --reason TEXT"
        )
    tiles = None
    if has_tiles and incumbent is not None and not choice.force:
        check_source(choice.test_data)
        tiles = announce(open_tiles(choice.test_data))
        ask_to_register(store, name)
    tags = {**describe_origin(), "histo.entry_point": "promote"}
    with open_run(store, "promote", tags=tags) as run:
        log_config(run, flatten(config))
        if tiles is not None and incumbent is not None:
            decision = pass_gate(
                run, name, version=version, incumbent=incumbent, tiles=tiles, compute=compute, options=config.gate
            )
        else:
            what = FIRST if incumbent is None else FORCED
            reason = stated or "no version was in Production"
            decision = Decision(what, version, incumbent, reason, run=run.id)
            keep_decision(run, name, decision)
    if decision.what == REFUSED:
        raise WorkError("; ".join(line.strip() for line in describe_decision(name, decision).splitlines()))
    say(describe_decision(name, decision))
