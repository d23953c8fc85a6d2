"""Write what a backbone makes of the tiles of a set to an HDF5 file."""

from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.errors import OptionError
from histo_mlflow.jobs import job
from histo_mlflow.learning.options import ComputeOptions, SeedOptions
from histo_mlflow.models.options import NetworkOptions
from histo_mlflow.options import JobOptions, option, output_file
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tiles.options import ReadingOptions, given_tiles


@dataclass(frozen=True, kw_only=True)
class Features(JobOptions):
    """Write what a backbone makes of the tiles of a set to an HDF5 file.

    They are computed once: what is in the cache already, or was begun before, is not computed again.
    """

    data: str = given_tiles("Tiles, as in `train --data`; must be given.")
    output: str = option("features.h5", "HDF5 file to write.")
    reading: ReadingOptions
    network: NetworkOptions
    seed: SeedOptions
    compute: ComputeOptions


@dataclass(frozen=True)
class FeaturesResult(Shown):
    """What was written.

    Attributes:
        path: The file: datasets `features` (n_tiles, n_features) float32, `labels`, `groups` if there are any; the attribute
            `classes`.
        n_tiles: Rows.
        n_features: Columns.
        encoder: Name of the backbone.
        encoder_sha256: Of its weights, the head's left out.
    """

    path: Path
    n_tiles: int
    n_features: int
    encoder: str
    encoder_sha256: str


@job("Learn", 4, example="histo features --data tiles.npz --output features.h5", keeps=False)
def features(options: Features) -> FeaturesResult:
    """Write an HDF5 file and return what is in it; it appears when it is complete."""
    from histo_mlflow.console import say
    from histo_mlflow.learning.compute import resolve_compute_for_report, seed_everything
    from histo_mlflow.models.weights import make_network
    from histo_mlflow.pipeline.features import write_features
    from histo_mlflow.pipeline.inputs import announce, open_weights
    from histo_mlflow.tiles.open import open_tiles
    from histo_mlflow.tracking.runs import begun_run
    from histo_mlflow.tracking.store import read_store

    output, compute = output_file(options.output), resolve_compute_for_report(options.compute)
    tiles = announce(open_tiles(options.data, image_size=options.network.image_size, reading=options.reading))
    if tiles.encoder:
        raise OptionError(f"data={options.data}: holds features already ({tiles.form}); give tiles")
    initial = open_weights(options.network, is_synthetic=tiles.is_synthetic)
    seed_everything(options.seed.seed)  # of random weights
    size_px = options.network.image_size or tiles.tile_size_px
    network, _ = make_network(initial, classes=tiles.classes, tile_size_px=size_px)
    facts = write_features(network.to(compute.device).eval(), tiles, compute, output)
    if run := begun_run(read_store()):
        run.log_file(output)
    kept = f"; kept with run {run.id} too" if run else ""
    say(f"{output}: {len(tiles)} tiles, {network.n_features} features each, {facts.encoder}{kept}")
    return FeaturesResult(output, len(tiles), network.n_features, facts.encoder, facts.encoder_sha256)
