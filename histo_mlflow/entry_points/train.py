"""Train on one part of the tiles, validate on the other, and register the model of the lowest validation loss."""

from histo_mlflow.config import TrainConfig, flatten
from histo_mlflow.console import say
from histo_mlflow.handing_on import describe_registration, hand_on
from histo_mlflow.inputs import open_learning_inputs
from histo_mlflow.recording import RecordedSplit, log_config, record_split
from histo_mlflow.tiles.splits import hold_out
from histo_mlflow.tracking.provenance import describe_origin
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store


def train(config: TrainConfig) -> str:
    """Run `train` and return the id of its run; everything that can be wrong with the request is found before it begins."""
    seed = config.learning.seed.seed
    inputs = open_learning_inputs(config.data, config.learning)
    split = hold_out(inputs.tiles, config.hold_out, seed=seed)
    store = open_store()
    tags = {
        **describe_origin(),
        "histo.entry_point": "train",
        "histo.seed": seed,
        "histo.data_fingerprint": inputs.tiles.fingerprint,
        "histo.synthetic": str(inputs.tiles.is_synthetic).lower(),
    }
    with open_run(store, "train", tags=tags) as run:
        log_config(run, flatten(config))
        recorded = record_split(
            run, inputs.tiles, split, test=inputs.test, initial=inputs.initial, config=config.learning, title="hold-out"
        )
        scores = describe_scores(recorded)
        run.describe(scores.replace("\n", "\n\n"))
        registration = hand_on(run, recorded, inputs.tiles, config.data, config.registry, tags={})
    say(f"\n{scores}\n{describe_registration(registration)}\n\nNext: mlflow ui    (this run: {run.id})")
    return run.id


def describe_scores(recorded: RecordedSplit) -> str:
    """Return the headline figures of a recorded split, one line per scored set."""
    lines = [f"Selected {recorded.selected}."]
    for name, evaluation in (("validation", recorded.val), ("test", recorded.test)):
        if evaluation is not None:
            figures = evaluation.overall
            lines.append(
                f"{name}: loss {figures['log_loss'].value:.4f}, accuracy {figures['accuracy'].value:.4f}, "
                f"balanced accuracy {figures['balanced_accuracy'].value:.4f}"
            )
    return "\n".join(lines)
