"""Train on one part of the tiles, validate on the other, and register the model of the lowest validation loss."""

from functools import partial

from histo_mlflow.console import say
from histo_mlflow.evaluation.costs import read_costs
from histo_mlflow.learning.compute import resolve_device
from histo_mlflow.learning.ranks import is_first_process, joined_ranks
from histo_mlflow.options import TrainConfig, flatten
from histo_mlflow.pipeline.contents import log_config, not_at_the_cost_of_the_model, training_tags
from histo_mlflow.pipeline.draw import draw
from histo_mlflow.pipeline.inputs import open_learning_inputs
from histo_mlflow.pipeline.processes import follow, launch_if_asked
from histo_mlflow.pipeline.publish import hand_on
from histo_mlflow.pipeline.record import RecordedSplit, drawable_of, record_split
from histo_mlflow.pipeline.resume import check_same_tiles, reopen
from histo_mlflow.tiles.splits import hold_out
from histo_mlflow.tracking.acceptance import check_options_accepted
from histo_mlflow.tracking.registry import ask_to_register
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store


def train(config: TrainConfig) -> None:
    """Run `train`; everything that can be wrong with the request is found before it begins."""
    check_options_accepted(flatten(config))
    resumed, config = reopen(config, config.keeping, entry_point="train")
    learning = config.learning
    seed = learning.seed.seed
    inputs = open_learning_inputs(config.data, learning)
    check_same_tiles(resumed, inputs.tiles, inputs.test)
    costs = read_costs(config.costs.costs, inputs.tiles.classes)
    split = hold_out(inputs.tiles, config.hold_out, seed=seed)
    launch_if_asked(learning.engine.processes)
    if not is_first_process():
        follow(inputs, [split], learning)
        return
    store = open_store(config.mirror)
    if config.registry.register:
        ask_to_register(store, config.registry.model_name)
    tags = training_tags("train", inputs.tiles, inputs.test, seed=seed)
    with (
        open_run(store, "train", tags=tags, resumed=resumed) as run,
        joined_ranks(resolve_device(learning.compute.device)) as ranks,
    ):
        log_config(run, flatten(config))
        recorded = record_split(
            run,
            inputs.tiles,
            split,
            test=inputs.test,
            initial=inputs.initial,
            config=learning,
            keeping=config.keeping,
            is_calibrated=config.calibration.is_wanted,
            costs=costs,
            title="hold-out",
            ranks=ranks,
        )
        scores = describe_scores(recorded)
        run.describe(scores.replace("\n", "\n\n"))
        became = hand_on(run, recorded, inputs, config.data, config.registry, config.gate, tags={})
        draw(drawable_of(recorded, run), inputs.by_split, partial(not_at_the_cost_of_the_model, run))
    say(f"\n{scores}\n{became}\n\nNext: mlflow ui    (this run: {run.id})")


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
