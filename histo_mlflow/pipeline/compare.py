"""Two models scored side by side in a run: what `compare` shows and what the registry's gate decides by."""

from histo_mlflow.console import format_table, warn
from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.findings import About
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.evaluation.kept_numbers import write_comparison
from histo_mlflow.evaluation.metrics import OVERALL_METRICS
from histo_mlflow.evaluation.paired import COMPARED, Comparison, compare_predictions
from histo_mlflow.evaluation.predictions import Predictions, match_classes
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.contents import log_datasets
from histo_mlflow.pipeline.split import score_part
from histo_mlflow.tiles.tile_set import TileSet, with_class_order
from histo_mlflow.tracking.looks import count_looks, note_looks
from histo_mlflow.tracking.runs import Run


def check_comparable(a: Model, b: Model) -> None:
    """Raise `RequestError` unless both models know the same classes."""
    if sorted(a.classes) != sorted(b.classes):
        raise RequestError(
            f"{a.address} knows {' '.join(a.classes)}, {b.address} knows {' '.join(b.classes)}: models of different classes "
            "can't be compared"
        )


def compare_models(
    run: Run, models: tuple[Model, Model], tiles: TileSet, compute: Compute, costs: Floats | None = None
) -> tuple[Comparison, About]:
    """Score both models on `tiles`, keep tables and metrics in `run`, and return what its page is drawn from.

    Each model's scoring is a look. `tiles` have the classes of the first model, in its order.
    """
    a, b = models
    for model in models:
        if tiles.fingerprint == model.facts.data_fingerprint:
            warn(f"{model.address} has learnt from these very tiles: the comparison is unfair")
    log_datasets(run, [tiles.part("test")], "compare")
    said = [_predict(model, tiles, a.classes, compute) for model in models]
    note_looks(run, tiles.fingerprint, run.noted_looks() + len(said))
    looks = count_looks(run.store, tiles.fingerprint)
    comparison = compare_predictions(*said, costs=costs)
    about = About.of(tiles.part("test"), a.describe(), b.describe(), looks=looks)
    with run.draft("comparison") as folder:
        write_comparison(folder, comparison, about)
    run.log_metrics(
        {f"difference/{name}": figure.value for name, figure in comparison.differences.items() if figure.is_defined}
    )
    return comparison, about


def _predict(model: Model, tiles: TileSet, classes: tuple[str, ...], compute: Compute) -> Predictions:
    own = with_class_order(tiles, model.classes)
    probabilities = probabilities_of(score_part(model.folded, own.part("test"), compute).logits)
    return Predictions(tiles.labels, match_classes(probabilities, model.classes, classes), classes, tiles.groups)


def describe_comparison(comparison: Comparison) -> str:
    """Return both models' figures and their differences as a table with a sentence on the test of equal accuracy."""
    rows = []
    for name in COMPARED:
        of_a, of_b = comparison.values[name]
        difference = comparison.differences[name]
        interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
        rows.append([OVERALL_METRICS[name].words, f"{of_a:.4f}", f"{of_b:.4f}", f"{difference.value:+.4f}", interval])
    table = format_table(["figure", "A", "B", "B - A", "95 % interval"], rows)
    return (
        f"{table}\nonly A right: {comparison.only_a} tiles, only B right: {comparison.only_b}; {comparison.test}: "
        f"p = {comparison.p_value:.3g}"
    )
