"""Going on with an interrupted run: with its own options and tiles, or not at all."""

import json
from typing import Any, TypeVar

from histo_mlflow.console import say, warn
from histo_mlflow.errors import RequestError
from histo_mlflow.options import build, flatten, option_fields, read_kept_yaml
from histo_mlflow.pipeline.options import LearningOptions
from histo_mlflow.process import is_first_process
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.found_runs import find_ended_run
from histo_mlflow.tracking.journal import deliver_left
from histo_mlflow.tracking.origin import describe_origin
from histo_mlflow.tracking.runs import Run
from histo_mlflow.tracking.store import open_store

OptionsT = TypeVar("OptionsT", bound=LearningOptions)

_EARLIER = "histo.earlier_origin."
_VERSIONS = ("version", "git_commit", "torch", "torchvision", "mlflow", "numpy", "scikit-learn", "python")


def reopen(options: OptionsT, *, job: str) -> tuple[Run | None, OptionsT]:
    """Return the run to go on with and its options, or None and `options` if none is to be resumed.

    Raises:
        RequestError: The run can't go on, or an option that changes the result is given another value than the run has.
    """
    keeping = options.keeping
    if not keeping.is_resumed:
        return None, options
    store = open_store()
    # The other processes of a training come here while the first may have opened the run again.
    run = Run(store, keeping.resume)
    if is_first_process():
        run = find_ended_run(store, keeping.resume, entry_point=job, take_over=keeping.take_over)
        if deliver_left(store, run.id):
            say("what was left beside the run is delivered")
    recorded = _options_of(run, type(options))
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
    """Keep how `run` came about so far in a numbered tag, and warn where versions have changed: figures may change too."""
    tags, present = run.tags(), describe_origin()
    earlier = {name.removeprefix("histo."): tags[name] for name, value in present.items() if tags.get(name, value) != value}
    if not earlier:
        return
    n = 1 + sum(name.startswith(_EARLIER) for name in tags)
    run.set_tags({f"{_EARLIER}{n}": json.dumps(earlier)})
    if changed := [f"{name} was {earlier[name]}, now {present[f'histo.{name}']}" for name in _VERSIONS if name in earlier]:
        warn(f"run {run.id} goes on with other versions: {'; '.join(changed)}; its figures may differ from those of one go")


def _options_of(run: Run, options: type[LearningOptions]) -> dict[str, Any]:
    if not run.has_file("config.yaml"):
        raise RequestError(f"resume={run.id} was ended before it began and has not noted its options; start a new run")
    return run.read("config.yaml", lambda file: read_kept_yaml(file, options))


def check_same_tiles(run: Run | None, tiles: TileSet, test: TileSet | None) -> None:
    """Raise `RequestError` unless `run` has learnt from these tiles and has watched this test set."""
    if run is None:
        return
    tags = run.tags()
    present = {"data": tiles.fingerprint, "test_data": test.fingerprint if test else "none"}
    for option, fingerprint in present.items():
        before = tags.get(f"histo.{option}_fingerprint", "none")
        if before != fingerprint:
            raise RequestError(
                f"resume={run.id}: {option} holds other tiles than the run began with (SHA-256 {fingerprint[:12]}, was "
                f"{before[:12]}); give the same tiles, or start a new run from its weights: weights={run.id}"
            )
