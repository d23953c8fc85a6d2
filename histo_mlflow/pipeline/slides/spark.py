"""Slides shared among the workers of Spark; what is done with each is what one process does."""

import importlib
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from typing import Any

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.compute import resolve_compute_for_report
from histo_mlflow.pipeline.slides.batch import Batch, Outcome, run_batch
from histo_mlflow.pipeline.slides.options import ScoringSlidesOptions
from histo_mlflow.pipeline.slides.request import open_batch
from histo_mlflow.slides.listing import SlideFile
from histo_mlflow.tracking.store import read_store

_URI = "MLFLOW_TRACKING_URI"


def run_on_spark(options: ScoringSlidesOptions, uri: str, slides: Sequence[SlideFile]) -> Generator[Outcome, None, None]:
    """Let each worker do slides as `run_batch` does, one after the other, and yield what became of all when they are done.

    Args:
        options: What is asked; workers open the model by it themselves.
        uri: Of the tracking store, which workers must reach.
        slides: Which, by paths that workers have too.

    Raises:
        OptionError: Spark is not installed.
    """
    try:
        sql: Any = importlib.import_module("pyspark.sql")
    except ImportError:
        raise OptionError("spark needs the package pyspark, and Java 17: python -m pip install -e '.[spark]'") from None
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        os.environ.setdefault(name, sys.executable)
    session = sql.SparkSession.builder.master(options.batch.spark_master).appName("histo slide").getOrCreate()
    try:
        shared = session.sparkContext.parallelize([(options, uri, slide) for slide in slides], max(1, len(slides)))
        yield from shared.mapPartitions(_work).collect()
    finally:
        session.stop()


def _work(share: Iterator[tuple[ScoringSlidesOptions, str, SlideFile]]) -> Iterator[Outcome]:
    for options, uri, slide in share:
        yield from run_batch(_batch(options, uri), [slide])


@cache
def _batch(options: ScoringSlidesOptions, uri: str) -> Batch:
    """Return what this worker does with each slide: the model is opened once."""
    os.environ[_URI] = uri
    return open_batch(read_store(), resolve_compute_for_report(options.compute), options)
