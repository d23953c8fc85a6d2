import numpy as np
import pytest

from histo_mlflow.auditing.centres import CHECK, robustness
from histo_mlflow.auditing.subject import Subject
from tests.auditing.plants import as_tiles

N = 240


def _drawn(of_class: float, of_centre: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features with so much of class and centre in them; three centres, two classes, unequal numbers."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(2, N, p=(0.6, 0.4))
    centres = np.array(["Bern", "Graz", "Ulm"])[generator.choice(3, N, p=(0.4, 0.3, 0.3))]
    features = generator.standard_normal((N, 20))
    features[:, 0] += of_class * (labels - 0.5)
    for k, centre in enumerate(np.unique(centres)):
        features[centres == centre, 1 + k] += of_centre
    return features.astype(np.float32), labels, centres


@pytest.mark.parametrize(("of_class", "of_centre", "low", "high"), [(12, 0, 0.95, 1), (0, 12, 0, 0.05), (0, 0, 0.42, 0.58)])
def test_the_index_tells_tissue_from_centre(of_class: float, of_centre: float, low: float, high: float) -> None:
    found = robustness(*_drawn(of_class, of_centre), seed=0)
    assert set(found) == {("Bern", "Graz"), ("Bern", "Ulm"), ("Graz", "Ulm")}
    assert all(low <= value <= high for value in found.values())


def test_centres_without_classes_in_common_are_left_out() -> None:
    features, labels, centres = _drawn(1, 1)
    labels[centres == "Ulm"] = 0
    assert set(robustness(features, labels, centres, seed=0)) == {("Bern", "Graz")}


def test_it_is_asked_where_centres_and_features_are_given_alone() -> None:
    features, labels, centres = _drawn(0, 12)
    tiles = as_tiles(np.zeros((N, 8, 8, 3), np.uint8), labels)
    (finding,) = CHECK.find(Subject(tiles, features=features))
    assert finding.severity == "unasked"
    assert "sites" in finding.summary
    (finding,) = CHECK.find(Subject(tiles.with_levels({"site": centres}), features=features))
    assert finding.severity == "doubtful"
    assert finding.figures["robustness_index"] < 0.05
    assert "folds=site" in finding.advice
