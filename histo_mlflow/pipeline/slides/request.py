"""What is asked of slides, opened and found right before the first of them is read."""

from pathlib import Path
from typing import Any

from histo_mlflow.console import say, warn
from histo_mlflow.errors import OptionError, SourceNotFoundError
from histo_mlflow.learning.compute import Compute
from histo_mlflow.options import flatten, stated
from histo_mlflow.pipeline.inputs import load_model
from histo_mlflow.pipeline.predict import check_runtime, in_runtime, threshold_of
from histo_mlflow.pipeline.slides.batch import Batch, part_of
from histo_mlflow.pipeline.slides.files import FileWriter
from histo_mlflow.pipeline.slides.model import SlideModel, scale_of
from histo_mlflow.pipeline.slides.options import ScoringSlidesOptions
from histo_mlflow.pipeline.slides.score import SlideRules
from histo_mlflow.slides.listing import SlideFile, list_slides
from histo_mlflow.tracking.registry import pinned
from histo_mlflow.tracking.store import Store


def open_slides(options: ScoringSlidesOptions) -> list[SlideFile]:
    """Return the slides that this process is asked to do, and say how many there are; raises as `list_slides`."""
    listed = list_slides(Path(options.asked.slides))
    for name in listed.passed_over:
        warn(f"passed over, no slide that can be read: {name}")
    slides = part_of(listed.slides, options.batch.part)
    part = "" if stated(options.batch.shard) is None else f", {len(slides)} of them in part {options.batch.shard}"
    say(f"slides: {options.asked.slides}: {len(listed.slides)}{part}")
    return slides


def open_batch(store: Store, compute: Compute, options: ScoringSlidesOptions) -> Batch:
    """Return what is to be done with each slide; raises `RequestError` for whatever is wrong with the request."""
    asked, output = options.asked, Path(options.batch.output).absolute()
    if output.exists() and not output.is_dir():
        raise OptionError(f"output={output}: is a file; name a folder")
    regions = None if (text := stated(asked.tissue)) is None else Path(text).expanduser()
    if regions is not None and not regions.exists():
        raise SourceNotFoundError(f"tissue={regions}: no such file or folder (looked in {Path.cwd()})")
    check_runtime(options.runtime.runtime, compute)
    if (address := pinned(store, asked.model)) != asked.model:
        say(f"model: {asked.model} is {address}")
    model = load_model(store, address, compute.device)
    microns = scale_of(model, asked.model_mpp)
    digest, threshold = model.digest, threshold_of(model) if options.abstention.abstain else None
    running, int8 = in_runtime(store, model, compute, options.runtime, options.gate)
    shown = SlideModel(running, digest, compute, microns, asked.views, threshold)
    rules = SlideRules(options.grid, options.finding, regions, asked.mpp or None)
    deciding: dict[str, Any] = {
        **flatten(options.grid),
        **flatten(options.finding),
        **flatten(options.viewer),
        "views": asked.views,
        "abstain": options.abstention.abstain,
        "mpp": asked.mpp,
        "model_mpp": microns,
        "runtime": options.runtime.runtime,
        "precision": "bf16" if compute.is_bf16 else "fp32",
        "int8": int8 or {},
    }
    say(f"{model.address}: tiles of {model.facts.tile_size_px} px at {microns:g} um per pixel")
    return Batch(output, shown, rules, deciding, FileWriter(options.viewer, model.address))
