"""Decide whether a version goes to Production: by comparison with the one in use, or by force with a reason."""

from dataclasses import dataclass

from histo_mlflow.errors import OptionError, RequestError, WorkError
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.jobs import job
from histo_mlflow.options import MODEL, option, stated
from histo_mlflow.pipeline.decided import DecisionResult
from histo_mlflow.pipeline.options import JudgingOptions
from histo_mlflow.tiles.options import ReadingOptions, ScaleOptions
from histo_mlflow.tracking.options import NameOptions, ReasonOptions


@dataclass(frozen=True, kw_only=True)
class Promote(JudgingOptions):
    """Put a version into Production.

    It is compared with the version in use on the labelled tiles of --test-data.
    """

    version: str = option("none", "Number of the version; or give `run`.")
    run: str = option("none", "Run that registered the version, by the first characters of its id, or `last`.", names=MODEL)
    test_data: str = option("none", "Labelled tiles on which it is compared with the version in Production.")
    force: bool = option(False, "Promote it without a comparison; needs a reason.")
    name: NameOptions
    why: ReasonOptions
    gate: GateOptions
    reading: ReadingOptions
    scale: ScaleOptions

    def __post_init__(self) -> None:
        """Raise `OptionError` for a decision without a reason too."""
        super().__post_init__()
        if self.force and not self.why.stated:
            raise OptionError("force needs a reason that others can read later: --reason 'why'")


@job("Decide what is in Production", 1, example="histo promote --version 2 --test-data test.npz")
def promote(options: Promote) -> DecisionResult:
    """Decide on a version and return the decision; a refusal is a `WorkError`, so that scripts can tell."""
    from histo_mlflow.console import say
    from histo_mlflow.pipeline.compare import Candidacy, describe_decision, keep_decision, pass_gate, show_decision
    from histo_mlflow.pipeline.contents import Beginning
    from histo_mlflow.pipeline.inputs import announce
    from histo_mlflow.pipeline.names import RunName
    from histo_mlflow.pipeline.session import begin_run, open_judging
    from histo_mlflow.tiles.open import check_source, open_tiles
    from histo_mlflow.tracking.decisions import FIRST, FORCED, REFUSED, Decision, complete, last_on
    from histo_mlflow.tracking.production import read_pointers
    from histo_mlflow.tracking.registry import ask_to_register, find_version

    name, test_data = options.name.model_name, stated(options.test_data)
    store, compute = open_judging(options)
    version = find_version(store, name, version=options.version, run_id=options.run)
    completed = complete(store, name)
    if completed is not None and completed.version == version and completed.moves_production:  # this very command, given again
        say(describe_decision(name, completed))
        return DecisionResult.of(completed)
    pointers = read_pointers(store.client, name)
    if not pointers.agree and not options.force:
        raise RequestError(pointers.describe_disagreement())
    incumbent = pointers.version
    if incumbent == version and pointers.agree:
        raise RequestError(f"{name}: version {version} is in Production already")
    before = last_on(store.client, name, version)
    if incumbent is None and not options.force and before is not None and before.what == REFUSED:
        raise OptionError(
            f"version {version} of {name} was refused ({before.reason}): to put it into Production all the same, give --force "
            "--reason TEXT"
        )
    tiles = None
    if incumbent is not None and not options.force:
        if test_data is None:
            raise OptionError(
                f"version {incumbent} of {name} is in Production, and only a comparison replaces it: give --test-data SET, or "
                "--force --reason TEXT"
            )
        check_source(test_data)
        tiles = announce(open_tiles(test_data, reading=options.reading))
        ask_to_register(store, name)
    made = RunName.of(f"promote {name}/{version}", options.naming)
    with begin_run(store, options, Beginning.of("promote", made)) as run:
        if tiles is not None and incumbent is not None:
            candidacy = Candidacy(name, version, incumbent)
            decision = pass_gate(run, candidacy, tiles, compute, options.gate, is_rescaled=options.scale.rescale)
        else:
            reason = options.why.stated or "no version was in Production"
            decision = Decision(FORCED if incumbent else FIRST, version, incumbent, reason, run=run.id)
            keep_decision(run, name, decision)
        made.end(run, decision.what)
        show_decision(run, name, decision)
    if decision.what == REFUSED:
        raise WorkError("; ".join(line.strip() for line in describe_decision(name, decision).splitlines()))
    say(describe_decision(name, decision))
    return DecisionResult.of(decision)
