"""Write a model for another runtime, after what was written has said the same of tiles as the model itself."""

from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.options import Int8Options
from histo_mlflow.jobs import job
from histo_mlflow.models.options import FORMATS, ONNX, OPENVINO_INT8
from histo_mlflow.options import MODEL, JobOptions, option, output_path, stated
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tiles.options import given_tiles
from histo_mlflow.tracking.options import PRODUCTION


@dataclass(frozen=True, kw_only=True)
class Export(JobOptions):
    """Write a model for another runtime.

    It is compared with the model on tiles before it is kept.
    """

    model: str = option(PRODUCTION, "The model to export, as `evaluate --model`.", positional=True, names=MODEL)
    to: str = option(
        ONNX,
        "`onnx`, `torchscript`, `openvino`: from uint8 tiles to logits. `openvino-int8`: the same in integers of 8 bits, which "
        "CPUs are faster with; takes minutes. `wsinfer`: the folder that WSInfer and QuPath take. `lazyslide`: a folder with "
        "the class that LazySlide takes.",
        choices=FORMATS,
    )
    data: str = given_tiles(
        "Tiles on which the export is compared with the model; must be given. To openvino-int8: labelled tiles, of which some "
        "calibrate it and the others are compared; of those that the model has learnt from, the validation tiles are taken."
    )
    output: str = option("none", "Folder to make; `none`: exported-<format>.")
    microns_per_pixel: float = option(
        0.0,
        "Of the model's own tiles, for WSInfer and LazySlide, where the model itself does not know it; 0: not given.",
        at_least=0,
    )
    tolerance: float = option(1e-4, "By how much a probability may differ from the model's.", above=0, below=1)
    gate: Int8Options


@dataclass(frozen=True)
class ExportResult(Shown):
    """What was written; stands for its folder wherever a path does.

    Attributes:
        path: The folder.
        form: For which runtime.
        agreement: How near it comes to the model, in words.
    """

    path: Path
    form: str
    agreement: str

    def __fspath__(self) -> str:
        return str(self.path)


@job("Use", 2, example="histo export models:/histo-b3/Production --to onnx --data test.npz", keeps=False)
def export(options: Export) -> ExportResult:
    """Write a model and return where and how well; the folder appears when its content was compared with the model."""
    import torch

    from histo_mlflow.console import say
    from histo_mlflow.models import exports
    from histo_mlflow.pipeline.export import Target, write_export
    from histo_mlflow.pipeline.inputs import check_form, load_model, open_calibration
    from histo_mlflow.tiles.open import check_source, open_tiles
    from histo_mlflow.tracking.runs import begun_run
    from histo_mlflow.tracking.store import read_store

    output = output_path(stated(options.output) or f"exported-{options.to}")
    if output.exists():
        raise OptionError(f"output={output}: exists; name another folder, or move it away")
    exports.require(options.to)
    check_source(options.data)
    store = read_store()
    model = load_model(store, options.model, torch.device("cpu"))
    is_int8 = options.to == OPENVINO_INT8
    part = open_calibration(store, model, options.data) if is_int8 else open_tiles(options.data).part("all")
    check_form(part.tiles.form, model, where=part.source)
    say(f"writing {options.to} and comparing it on tiles of {part.source} ...")
    target = Target(options.to, output, options.microns_per_pixel or None, options.tolerance, options.gate)
    agreement = write_export(model, target, part)
    if run := begun_run(store):
        run.log_folder(output, output.name)
    kept = f"; kept with run {run.id} too" if run else ""
    say(f"{output}: {agreement}{kept}")
    return ExportResult(output, options.to, agreement)
