"""Look for what is wrong with tiles before anything learns from them."""

from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.errors import OptionError
from histo_mlflow.jobs import job
from histo_mlflow.learning.options import ComputeOptions, SeedOptions
from histo_mlflow.options import CV_RUN, JobOptions, option, stated
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tiles.options import DataOptions


@dataclass(frozen=True, kw_only=True)
class Audit(JobOptions):
    """Look for what is wrong with tiles before anything learns from them.

    Duplicates within a set and across two, damaged tiles, labels in doubt, traces of storage, what colour alone tells. A page
    with pictures, audit.json and exclude.txt are written. With a backbone it also finds the same tissue turned, cropped or
    overlapping, and labels in doubt. Of tiles that `tiles` has cut, these are written for QuPath too.
    """

    output: str = option(
        "audit", "Folder to write audit.html, audit.json, exclude.txt (for `exclude`) and clusters.csv (for `groups`) to."
    )
    backbone: str = option(
        "none",
        "Frozen network whose features find overlapping and turned tiles and labels in doubt, as in `train --backbone`: lite0 "
        "is the fastest; `none` leaves those checks out.",
    )
    run: str = option(
        "none",
        "Run id of a `cv` on these very tiles, whose out-of-fold predictions tell which labels are in doubt; or `none`.",
        names=CV_RUN,
    )
    image_size: int = option(0, "Edge length in pixels to which a folder of mixed sizes is brought; 0 = as stored.", at_least=0)
    tiles: DataOptions
    seed: SeedOptions
    compute: ComputeOptions


@dataclass(frozen=True)
class AuditResult(Shown):
    """What an audit has found.

    Attributes:
        page: ``audit.html``.
        found: Number of tiles by kind of finding, of those that are not clear.
        excluded: Names of the tiles of `data` that had better be left out.
    """

    page: Path
    found: dict[str, int]
    excluded: tuple[str, ...]


@job("Judge", 0, example="histo audit --data tiles.npz --test-data test.npz --backbone lite0", keeps=False)
def audit(options: Audit) -> AuditResult:
    """Audit one set of tiles, or two against each other."""
    from histo_mlflow.auditing.finding import CLEAR, UNASKED
    from histo_mlflow.auditing.result import EXCLUDE, PAGE
    from histo_mlflow.base.counting import many
    from histo_mlflow.console import say
    from histo_mlflow.models.options import NetworkOptions
    from histo_mlflow.pipeline.audit import audit_tiles, describe_audit, features_for_audit, open_audited, predictions_of
    from histo_mlflow.tracking.runs import begun_run
    from histo_mlflow.tracking.store import read_store

    output = Path(options.output).absolute()
    if output.exists() and not output.is_dir():
        raise OptionError(f"output={output}: is a file; name a folder")
    sets, seed, features = open_audited(options.tiles, options.image_size), options.seed.seed, None
    predictions = predictions_of(run_id, sets[0]) if (run_id := stated(options.run)) else None
    if backbone := stated(options.backbone):
        network = NetworkOptions(backbone=backbone, image_size=options.image_size)
        features = features_for_audit(sets, network, options.compute, seed)
    done = audit_tiles(sets, features, predictions, seed)
    done.write(output)
    if run := begun_run(read_store()):
        run.log_folder(output, "audit")
    say(f"\n{describe_audit(done)}\n\n{output / PAGE}; {many(len(done.excluded), 'tile')} to leave out: {output / EXCLUDE}")
    found = {each.kind: each.n for each in done.findings if each.severity not in (CLEAR, UNASKED)}
    return AuditResult(output / PAGE, found, tuple(map(str, done.subject.names[done.excluded])))
