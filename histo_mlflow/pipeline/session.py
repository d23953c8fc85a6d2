"""A job from its request to the run that is open for it: what it reads, the run that goes on, the processes at work."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NoReturn, TypeVar

from histo_mlflow.base.interruption import LAUNCHER_VARIABLE
from histo_mlflow.console import say, warn
from histo_mlflow.errors import Interrupted, NonFiniteLossError, RankFailedError, RankLostError, RequestError, WorkError
from histo_mlflow.learning.compute import Compute, resolve_compute_for_report, resolve_device
from histo_mlflow.learning.options import Recipe
from histo_mlflow.learning.ranks import Ranks, joined_ranks
from histo_mlflow.options import JobOptions, build, flatten, option_fields, read_yaml, stated
from histo_mlflow.pipeline.contents import Beginning, log_config
from histo_mlflow.pipeline.inputs import LearningInputs, open_learning_inputs
from histo_mlflow.pipeline.names import RunName, name_learning
from histo_mlflow.pipeline.options import JudgingOptions, LearningOptions
from histo_mlflow.pipeline.outlook import announce_run, how_to_go_on
from histo_mlflow.pipeline.split import run_split
from histo_mlflow.process import is_first_process, is_launched
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tracking.about import note, read_notes
from histo_mlflow.tracking.acceptance import check_options_accepted
from histo_mlflow.tracking.found_runs import find_ended_run
from histo_mlflow.tracking.journal import deliver_left
from histo_mlflow.tracking.origin import describe_origin
from histo_mlflow.tracking.registry import ask_to_register
from histo_mlflow.tracking.runs import Run, begun_run, open_run
from histo_mlflow.tracking.store import Store, open_store

OptionsT = TypeVar("OptionsT", bound=LearningOptions)

_VERSIONS = ("version", "git_commit", "torch", "torchvision", "mlflow", "numpy", "scikit-learn", "python")


@dataclass(frozen=True, eq=False)
class Request(Generic[OptionsT]):
    """What a job was asked, opened and found right, before anything begins.

    Attributes:
        job: Its name.
        options: As asked; of a run that goes on, its own.
        inputs: What it reads.
        resumed: The run that goes on, or None.
    """

    job: str
    options: OptionsT
    inputs: LearningInputs
    resumed: Run | None

    @property
    def seed(self) -> int:
        """Seed of everything that is random."""
        return self.options.recipe.seed.seed


@dataclass(frozen=True, eq=False)
class Session:
    """A job at work.

    Attributes:
        run: Where everything is kept.
        ranks: The processes that share the work.
        inputs: What it reads.
        options: What it was asked.
        name: What its run is called.
        links: By their words, what descriptions lead to beside the run's own pages.
        n_splits_after: Folds that are to be learnt after this one.
    """

    run: Run
    ranks: Ranks
    inputs: LearningInputs
    options: LearningOptions
    name: RunName
    links: Mapping[str, str] = field(default_factory=dict)
    n_splits_after: int = 0


def open_request(job: str, options: OptionsT) -> Request[OptionsT]:
    """Return the opened request; raises `RequestError` for whatever is wrong with it."""
    check_options_accepted(flatten(options))
    resolve_device(options.recipe.compute.device)
    resumed = None
    if options.keeping.is_resumed:
        resumed, options = _reopen(options, job)
    inputs, suited = open_learning_inputs(options)
    if resumed is None:
        options = suited
    else:
        _check_same_tiles(resumed, inputs)
    return Request(job, options, inputs, resumed)


def _reopen(options: OptionsT, job: str) -> tuple[Run, OptionsT]:
    """Return the run to go on with, and its options.

    Raises:
        RequestError: The run can't go on, or an option that changes the result is given another value than the run has.
    """
    keeping, store = options.keeping, open_store(experiment=stated(options.naming.experiment))
    # The other processes of a training come here while the first may have opened the run again.
    run = Run(store, keeping.resume)
    if is_first_process():
        run = find_ended_run(store, keeping.resume, entry_point=job, take_over=keeping.take_over)
        if deliver_left(store, run.id):
            say("what was left beside the run is delivered")
    if not run.has_file("config.yaml"):
        raise RequestError(f"resume={run.id} was ended before it began and has not noted its options; start a new run")
    recorded = run.read("config.yaml", lambda file: read_yaml(file, type(options), is_kept=True))
    if "experiment" in options.given and run.experiment_id != store.experiment_id:
        raise RequestError(f"resume={run.id}: the run stays in the experiment that it began in; leave experiment out")
    values, known = flatten(options), option_fields(type(options))
    for name in options.given:
        if known[name].metadata["option"].changes_result and values[name] != recorded.get(name, values[name]):
            raise RequestError(
                f"resume={run.id}: {name} was {recorded[name]}, now {values[name]}; leave it out, or start a new run from the "
                f"weights of this one: weights={run.id}"
            )
    own = {"resume": keeping.resume, "take_over": keeping.take_over}
    values = recorded | {name: values[name] for name in options.given} | own
    if is_first_process():
        _keep_origin(run)
    say(f"going on with run {run.id}, with its own options")
    return run, build(type(options), values, given=options.given)


def _keep_origin(run: Run) -> None:
    """Keep how `run` came about so far, and warn where versions have changed: figures may change too."""
    notes, present = read_notes(run), describe_origin()
    earlier = {name: notes[name] for name, value in present.items() if notes.get(name, value) != value}
    if not earlier:
        return
    note(run, {"earlier": [*notes.get("earlier", []), earlier]})
    if changed := [f"{name} was {earlier[name]}, now {present[name]}" for name in _VERSIONS if name in earlier]:
        warn(f"run {run.id} goes on with other versions: {'; '.join(changed)}; its figures may differ from those of one go")


def _check_same_tiles(run: Run, inputs: LearningInputs) -> None:
    """Raise `RequestError` unless `run` has learnt from these tiles and has watched this test set."""
    tags = run.tags()
    for option, fingerprint in (("data", inputs.tiles.fingerprint), ("test_data", inputs.test_fingerprint)):
        before = tags.get(f"histo.{option}_fingerprint", "none")
        if before != fingerprint:
            raise RequestError(
                f"resume={run.id}: {option} holds other tiles than the run began with (SHA-256 {fingerprint[:12]}, was "
                f"{before[:12]}); give the same tiles, or start a new run from its weights: weights={run.id}"
            )


def open_judging(options: JudgingOptions) -> tuple[Store, Compute]:
    """Return where a job keeps what it finds and what it computes on; raises `RequestError` if either is not to be had."""
    check_options_accepted(flatten(options))
    compute = resolve_compute_for_report(options.compute)
    return open_store(options.mirror, experiment=stated(options.naming.experiment)), compute


@contextmanager
def begin_run(store: Store, options: JobOptions, beginning: Beginning, resumed: Run | None = None) -> Iterator[Run]:
    """Open the run of a job, keep its options in it, and say where it is to be seen."""
    with open_run(store, beginning.name.at_first, tags=beginning.tags, resumed=resumed) as run:
        log_config(run, flatten(options))
        note(run, beginning.about)
        announce_run(run)
        yield run


@contextmanager
def begin(request: Request[OptionsT], splits: Sequence[Split]) -> Iterator[Session]:
    """Open the run of a request for the first process; the others learn `splits` along and end here."""
    options, inputs = request.options, request.inputs
    processes = options.recipe.engine.processes
    if processes > 1 and not is_launched():
        _become_torchrun(processes)
    if not is_first_process():
        _follow(inputs, splits, options.recipe)
    store = open_store(options.mirror, experiment=stated(options.naming.experiment))
    if options.registry.register:
        ask_to_register(store, options.registry.model_name)
    unit = splits[0].unit
    say(f"kept together by the split: {unit.describe()}")
    name = RunName.of(name_learning(options, encoder=inputs.tiles.encoder), options.naming)
    about: dict[str, Any] = {"seed": request.seed, "split_by": unit.level, "split_unit": unit.describe()}
    beginning = Beginning.of(request.job, name, inputs.tiles, **about)
    if inputs.test is not None:
        beginning = replace(beginning, tags={**beginning.tags, "histo.test_data_fingerprint": inputs.test_fingerprint})
    is_project, begun = begun_run(store) is not None, None
    try:
        with (
            begin_run(store, options, beginning, request.resumed) as begun,
            joined_ranks(resolve_device(options.recipe.compute.device)) as ranks,
        ):
            yield Session(begun, ranks, inputs, options, name)
    except (Interrupted, KeyboardInterrupt, WorkError) as error:
        if begun is not None and not isinstance(error, NonFiniteLossError):  # which would come again
            say(how_to_go_on(request.job, begun, is_project=is_project))
        raise


def _become_torchrun(processes: int) -> NoReturn:
    """Go on as torchrun with the same command."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # torchrun would set 1 and say so at length
    os.environ[LAUNCHER_VARIABLE] = str(os.getppid())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    sys.stdout.flush()
    os.execv(sys.executable, [*launcher, "-m", "histo_mlflow", *sys.argv[1:]])  # noqa: S606 - our own command again


def _follow(inputs: LearningInputs, splits: Sequence[Split], recipe: Recipe) -> NoReturn:
    """Do the share of a process that is not the first: learn along, keep nothing, and end the process.

    What the first one says itself is not said again: exit code 1.
    """
    try:
        with joined_ranks(resolve_device(recipe.compute.device)) as ranks:
            for split in splits:
                run_split(inputs, split, recipe, on_epoch=lambda _: None, ranks=ranks)
    except RankLostError:
        open_store()  # ends the run of a first process that was killed, which nobody else would
        raise
    except (RankFailedError, Interrupted):
        sys.exit(1)
    sys.exit(0)
