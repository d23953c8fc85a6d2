"""A job from its request to the run that is open for it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from histo_mlflow.learning.compute import Compute, resolve_compute_for_report, resolve_device
from histo_mlflow.learning.ranks import Ranks, joined_ranks
from histo_mlflow.options import JobOptions, flatten
from histo_mlflow.pipeline.contents import log_config, training_tags
from histo_mlflow.pipeline.inputs import LearningInputs, open_learning_inputs
from histo_mlflow.pipeline.options import JudgingOptions, LearningOptions
from histo_mlflow.pipeline.processes import follow, launch_if_asked
from histo_mlflow.pipeline.resume import check_same_tiles, reopen
from histo_mlflow.process import is_first_process
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tracking.acceptance import check_options_accepted
from histo_mlflow.tracking.registry import ask_to_register
from histo_mlflow.tracking.runs import Run, open_run
from histo_mlflow.tracking.store import Store, open_store

OptionsT = TypeVar("OptionsT", bound=LearningOptions)


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
    """

    run: Run
    ranks: Ranks
    inputs: LearningInputs
    options: LearningOptions

    def within(self, run: Run) -> "Session":
        """Return the same session with another run, such as a fold's."""
        return replace(self, run=run)


def open_request(job: str, options: OptionsT) -> Request[OptionsT]:
    """Return the opened request; raises `RequestError` for whatever is wrong with it."""
    check_options_accepted(flatten(options))
    resolve_device(options.recipe.compute.device)
    resumed, options = reopen(options, job=job)
    inputs = open_learning_inputs(options)
    check_same_tiles(resumed, inputs.tiles, inputs.test)
    return Request(job, options, inputs, resumed)


def open_judging(options: JudgingOptions) -> tuple[Store, Compute]:
    """Return where a job keeps what it finds and what it computes on; raises `RequestError` if either is not to be had."""
    check_options_accepted(flatten(options))
    compute = resolve_compute_for_report(options.compute)
    return open_store(options.mirror), compute


@contextmanager
def begin_run(
    store: Store, job: str, options: JobOptions, tags: Mapping[str, object], resumed: Run | None = None
) -> Iterator[Run]:
    """Open the run of a job, and keep its options in it."""
    with open_run(store, job, tags=tags, resumed=resumed) as run:
        log_config(run, flatten(options))
        yield run


@contextmanager
def begin(request: Request[OptionsT], splits: Sequence[Split]) -> Iterator[Session]:
    """Open the run of a request for the first process; the others learn `splits` along and end here."""
    options, inputs = request.options, request.inputs
    launch_if_asked(options.recipe.engine.processes)
    if not is_first_process():
        follow(inputs, splits, options.recipe)
    store = open_store(options.mirror)
    if options.registry.register:
        ask_to_register(store, options.registry.model_name)
    tags = training_tags(request.job, inputs.tiles, inputs.test, seed=request.seed)
    with (
        begin_run(store, request.job, options, tags, request.resumed) as run,
        joined_ranks(resolve_device(options.recipe.compute.device)) as ranks,
    ):
        yield Session(run, ranks, inputs, options)
