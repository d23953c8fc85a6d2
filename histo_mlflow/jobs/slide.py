"""Show whole slides to a model, and write what it says of them as files that viewers open."""

from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.errors import UnreadableSlideError
from histo_mlflow.jobs import job
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.pipeline.slides.options import ScoringSlidesOptions


@dataclass(frozen=True, kw_only=True)
class Slide(ScoringSlidesOptions):
    """Score whole slides: where which class is, for QuPath and as a picture.

    Of each slide NAME in the output folder: NAME.png (what to open first), NAME.geojson.gz (drag it into QuPath), NAME.csv,
    NAME.ome.tif, NAME.zarr; of all of them summary.csv. Run again, it goes on where it was stopped; slides that can't be read
    end nothing and are named at the end.
    """


@dataclass(frozen=True)
class SlideResult(Shown):
    """What became of the slides.

    Attributes:
        run_id: Of its run in MLflow.
        output: The folder with their files.
        done: Names of those that were done now.
        done_before: Names of those that were there already.
        elsewhere: Names of those that other processes are at.
    """

    run_id: str
    output: Path
    done: tuple[str, ...]
    done_before: tuple[str, ...]
    elsewhere: tuple[str, ...]


@job("Use", 2, example="histo slide --slides slides --output scored")
def slide(options: Slide) -> SlideResult:
    """Score slides and keep what is found in a run.

    Raises:
        UnreadableSlideError: Some slides could not be scored; all others are.
    """
    from histo_mlflow.console import say
    from histo_mlflow.pipeline.session import begin_run, open_judging
    from histo_mlflow.pipeline.slides.batch import DONE, DONE_BEFORE, ELSEWHERE, FAILED_NOW, run_batch
    from histo_mlflow.pipeline.slides.record import describe_outcomes, how_slides_begin, record_slides
    from histo_mlflow.pipeline.slides.request import open_batch, open_slides
    from histo_mlflow.pipeline.slides.spark import run_on_spark
    from histo_mlflow.tracking.acceptance import check_classes_accepted

    store, compute = open_judging(options)
    slides = open_slides(options)
    batch = open_batch(store, compute, options)
    check_classes_accepted(batch.model.model.classes, where=batch.model.model.address)
    with begin_run(store, options, how_slides_begin(batch, options.asked.slides, options.naming)) as run:
        is_alone = options.batch.spark_master is None
        coming = run_batch(batch, slides) if is_alone else run_on_spark(options, store.uri, slides)
        outcomes = record_slides(run, batch, coming, keep=options.batch.keep)
        say(f"\n{describe_outcomes(outcomes)}; {batch.folder}, run {run.id}")
        if outcomes.of(FAILED_NOW):
            raise UnreadableSlideError(outcomes.describe_failed())
    return SlideResult(run.id, batch.folder, outcomes.of(DONE), outcomes.of(DONE_BEFORE), outcomes.of(ELSEWHERE))
