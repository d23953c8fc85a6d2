import json
from pathlib import Path

import numpy as np
import pytest

from histo_mlflow.errors import OptionError, SourceNotFoundError
from histo_mlflow.evaluation.baselines import (
    HISTOGRAM,
    MAJORITY,
    MEAN_COLOUR,
    colour_features,
    fit_baselines,
    from_json,
    to_json,
)
from histo_mlflow.evaluation.costs import default_costs, read_costs


def _tiles(seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Class 0 is reddish, 1 bluish; 2 is a mix of black and white whose mean is that of 3, plain grey."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    images = rng.integers(100, 156, (n, 32, 32, 3))
    images[labels == 0, ..., 0] += 60
    images[labels == 1, ..., 2] += 60
    extremes = rng.choice([2, 253], (int((labels == 2).sum()), 32, 32, 1))
    images[labels == 2] = extremes
    return images.astype(np.uint8), labels


def test_each_baseline_sees_what_it_should_and_no_more() -> None:
    images, labels = _tiles(0)
    fitted = {each.name: each for each in fit_baselines(images, labels, np.arange(120), n_classes=5, seed=0)}
    unseen, truth = _tiles(1)
    features = colour_features(unseen, np.arange(120))
    said = {name: each.probabilities(features).argmax(axis=1) for name, each in fitted.items()}
    assert len(set(said[MAJORITY].tolist())) == 1
    assert (said[MEAN_COLOUR] == truth)[truth < 2].all()
    assert 0.3 < (said[MEAN_COLOUR] == truth)[truth >= 2].mean() < 0.8, "their means are the same"
    assert (said[HISTOGRAM] == truth).all()
    assert all(np.allclose(each.probabilities(features).sum(axis=1), 1) for each in fitted.values())


def test_baselines_survive_json() -> None:
    images, labels = _tiles(0)
    fitted = fit_baselines(images, labels, np.arange(60), n_classes=4, seed=0)
    again = from_json(json.loads(json.dumps(to_json(fitted))))
    features = colour_features(images, np.arange(60, 120))
    for before, after in zip(fitted, again, strict=True):
        assert np.array_equal(before.probabilities(features), after.probabilities(features))


@pytest.mark.parametrize("present", [[0], [0, 2]])
def test_few_classes(present: list[int]) -> None:
    images, labels = _tiles(0)
    rows = np.flatnonzero(np.isin(labels, present))
    for each in fit_baselines(images, labels, rows, n_classes=4, seed=0):
        said = each.probabilities(colour_features(images, rows)).argmax(axis=1)
        assert set(said.tolist()) <= set(present)


def test_costs_from_a_file(tmp_path: Path) -> None:
    classes = ("NORM", "STR", "TUM")
    assert default_costs(classes).tolist() == [[0, 1, 2], [1, 0, 2], [10, 5, 0]]
    file = tmp_path / "costs.yaml"
    file.write_text("{TUM: {NORM: 50}, STR: {STR: 0.5}}")
    assert read_costs(str(file), classes).tolist() == [[0, 1, 2], [1, 0.5, 2], [50, 5, 0]]
    for content, words in (("{TUM: {XYZ: 1}}", "no class 'XYZ'"), ("{TUM: {STR: -1}}", "from 0 to 1e"), ("[1]", "of the form"),
                           ("{TUM: {STR: true}}", "from 0 to 1e"), ("a: [", "not a yaml")):  # fmt: skip
        file.write_text(content)
        with pytest.raises(OptionError, match=words):
            read_costs(str(file), classes)
    with pytest.raises(SourceNotFoundError, match="no such file"):
        read_costs(str(tmp_path / "none.yaml"), classes)
