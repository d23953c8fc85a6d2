"""Train on one part of the tiles and validate on the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from histo_mlflow.jobs import job
from histo_mlflow.pipeline.options import LearningOptions
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tiles.options import HoldOutOptions

if TYPE_CHECKING:
    from histo_mlflow.evaluation.metrics import Evaluation


@dataclass(frozen=True)
class Train(LearningOptions):
    """Train on one part of the tiles and validate on the other.

    The epoch of the lowest validation loss is logged and registered.
    """

    split: HoldOutOptions


@dataclass(frozen=True, eq=False)
class TrainResult(Shown):
    """What a training has found.

    Attributes:
        run_id: Of its run in MLflow.
        model_uri: Address of the logged model.
        version: Number of the registered version, or None.
        best_epoch: The one whose weights the model has.
        val: Evaluation on the validation tiles, which chose the epoch.
        test: Evaluation on the test tiles, or None if there were none.
    """

    run_id: str
    model_uri: str
    version: str | None
    best_epoch: int
    val: "Evaluation"
    test: "Evaluation | None"


@job("Learn", 1, example="histo train --data tiles.npz --test-data test.npz")
def train(options: Train) -> TrainResult:
    """Train on one part of the tiles and validate on the other; whatever is wrong with the request is found before."""
    from histo_mlflow.console import say
    from histo_mlflow.pipeline.description import Description, describe_end, report_links
    from histo_mlflow.pipeline.draw import draw_split
    from histo_mlflow.pipeline.publish import hand_on
    from histo_mlflow.pipeline.record import record_split
    from histo_mlflow.pipeline.session import begin, open_request
    from histo_mlflow.tiles.splits import hold_out

    request = open_request("train", options)
    split = hold_out(request.inputs.tiles, request.options.split, seed=request.seed)
    with begin(request, [split]) as session:
        recorded = record_split(session, split, title="hold-out")
        handed_on, judged = hand_on(session, recorded), recorded.judged
        Description.of(judged).put(session.run, {**report_links(session.run, judged), **handed_on.links})
        draw_split(session, recorded)
    say(f"\n{recorded.describe()}\n{handed_on.describe()}\n\n{describe_end(session.run, judged)}")
    return TrainResult(
        session.run.id, handed_on.model_uri, handed_on.version, recorded.best.best_epoch, recorded.val, recorded.test
    )
