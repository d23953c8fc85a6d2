"""Write a label and the probabilities of every image of a source to a CSV file."""

import csv
from pathlib import Path

from tqdm import tqdm

from histo_mlflow.config import PredictConfig
from histo_mlflow.console import say, warn
from histo_mlflow.errors import OptionError, SourceNotFoundError, UnreadableTilesError
from histo_mlflow.inputs import LoadedModel, load_model
from histo_mlflow.learning.compute import Compute, resolve_compute_for_report
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.tiles.unlabelled import ImageSource, open_images
from histo_mlflow.tracking.store import open_store


def predict(config: PredictConfig) -> Path:
    """Run `predict` and return the file: ``path`` or ``index``, ``label``, ``prob_<class>`` in class order.

    The file appears when it is complete. Images that can't be read are left out and listed at the end.

    Raises:
        UnreadableTilesError: Some images could not be read; all others are in the file.
    """
    compute = resolve_compute_for_report(config.compute)
    output = Path(config.output.output)
    if not output.parent.is_dir():
        raise SourceNotFoundError(f"output={output}: the folder {output.parent} does not exist; make it first")
    if output.is_dir():
        raise OptionError(f"output={output}: is a folder; name a file in it")
    images = open_images(config.scoring.data)
    model = load_model(open_store(), config.scoring.model, compute.device)
    failures: list[str] = []
    _write(output, images, model, compute, failures)
    say(f"{len(images) - len(failures)} of {len(images)} images predicted: {output}")
    if failures:
        for failure in failures:
            warn(failure)
        raise UnreadableTilesError(f"{len(failures)} of {len(images)} images could not be read and are not in {output}")
    return output


def _write(output: Path, images: ImageSource, model: LoadedModel, compute: Compute, failures: list[str]) -> None:
    # A device such as /dev/stdout is written as it is; a file is renamed into place when it is complete.
    draft = output if output.exists() and not output.is_file() else output.with_name(output.name + ".draft")
    try:
        with (
            draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
            tqdm(total=len(images), unit="tile", desc="predict", disable=None, leave=False) as bar,
        ):
            writer = csv.writer(file)
            writer.writerow([images.column, "label", *(f"prob_{name}" for name in model.classes)])
            for blocks in images.blocks(failures):
                rows: dict[int, list[str]] = {}
                for block in blocks:
                    probabilities = probabilities_of(infer(model.network, block.images, compute=compute))
                    for position, of_tile in zip(block.positions, probabilities, strict=True):
                        label = model.classes[int(of_tile.argmax())]
                        rows[position] = [images.names[position], label, *(f"{value:.9g}" for value in of_tile)]
                    bar.update(len(block.positions))
                writer.writerows(rows[position] for position in sorted(rows))
        if draft != output:
            draft.replace(output)
    finally:
        if draft != output:
            draft.unlink(missing_ok=True)
