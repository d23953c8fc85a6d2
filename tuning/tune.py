"""The search as a job like the others: on the command line, for `mlflow run` and in Python.

It lies beside the package, where `python tuning/search.py` starts it and its ranges are at hand; a wheel carries it within the
package, as `histo_mlflow.tuning`. Its modules import one another relatively, so that they work under either name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from histo_mlflow.errors import OptionError
from histo_mlflow.jobs import job
from histo_mlflow.pipeline.shown import Shown

from .options import Tune


@dataclass(frozen=True)
class TuneResult(Shown):
    """What a search has found.

    Attributes:
        run_id: Of the study's run in MLflow.
        best_values: The options of the best trial, by name.
        best_val_loss: Its validation loss, in nats; of several folds the mean.
    """

    run_id: str
    best_values: Mapping[str, Any]
    best_val_loss: float


@job("Learn", 3, example="histo tune --data tiles.npz --trials 20")
def tune(options: Tune) -> TuneResult | None:
    """Run trials until the study has as many as asked for, and record its result; a worker of another process has none."""
    # Imported when the work begins: it takes seconds, and an option that is wrong needs none of it.
    from .search_space import Space
    from .trials import run_trials

    space = Space.of(options.search, epochs=options.recipe.fit.epochs)
    if fixed := sorted(options.given & set(space.names)):
        raise OptionError(f"{fixed[0]} is searched and can't be given; leave it out here, or out of --search")
    return run_trials(options, space)
