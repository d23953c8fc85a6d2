"""Labels that were changed on purpose are found by features and neighbours."""

import os
from pathlib import Path

import numpy as np
import pytest

from histo_mlflow.auditing.finding import NOTE, UNASKED
from histo_mlflow.auditing.labels import CHECK, Draw, Trial, choose_cut, examine, find_issues, flip, judge, margins, say_of_each
from histo_mlflow.auditing.neighbours import nearest, whiten
from histo_mlflow.auditing.subject import Subject
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.learning.options import ComputeOptions
from histo_mlflow.models.options import NetworkOptions
from histo_mlflow.pipeline.audit import features_for_audit
from histo_mlflow.tiles.open import open_tiles
from tests.auditing.plants import as_tiles, texture


def _clouds(n: int = 300, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    centres = 3 * generator.standard_normal((n_classes, 20))
    return (centres[labels] + generator.standard_normal((n, 20))).astype(np.float32), labels


def test_flips_change_so_many_labels_to_others() -> None:
    labels = np.arange(200) % 4
    flipped, rows = flip(labels, 0.05, seed=1)
    assert len(rows) == 10
    assert sorted(np.flatnonzero(flipped != labels)) == sorted(rows)
    assert set(flipped) <= {0, 1, 2, 3}


def test_flipped_labels_of_clouds_are_found() -> None:
    features, labels = _clouds()
    _, trial, _ = examine(whiten(features), labels, None, 0)
    assert trial.precision >= 0.9
    assert trial.recall >= 0.9


def test_the_cut_is_the_most_lenient_that_is_precise() -> None:
    before = np.ones(100)
    changed, planted = before.copy(), np.arange(10)
    changed[planted] = -0.55
    changed[20:30] = -0.32  # right, and in doubt since the labels of others were changed
    assert choose_cut([Draw(changed, planted)], before) == -0.35
    assert judge([Draw(changed, planted)], before, -0.35).recall == 1


def test_what_was_in_doubt_before_is_no_false_alarm() -> None:
    before = np.ones(50)
    before[40:] = -0.9
    changed, planted = before.copy(), np.arange(5)
    changed[planted] = -0.9
    assert judge([Draw(changed, planted)], before, -0.3).precision == 1


def test_draws_count_together() -> None:
    before = np.ones(50)
    found, missed = before.copy(), before.copy()
    found[[0, 1, 2, 30]] = -0.9
    draws = [Draw(found, np.arange(3)), Draw(missed, np.arange(10, 13))]
    assert judge(draws, before, -0.3) == Trial(precision=0.75, recall=0.5)


def test_predictions_of_a_run_are_asked_where_there_are_any() -> None:
    tiles = as_tiles(texture(60))
    said = np.full((60, 2), 0.1)
    said[np.arange(60), tiles.labels] = 0.9
    said[7] = said[7, ::-1]
    (found,) = CHECK.find(Subject(tiles, predictions=Predictions(tiles.labels, said, tiles.classes)))
    assert found.rows.tolist() == [7]
    assert not len(found.exclude)
    assert found.severity != NOTE


def test_without_features_and_predictions_it_says_that_it_has_not_looked() -> None:
    (found,) = CHECK.find(Subject(as_tiles(texture(20))))
    assert found.severity == UNASKED


def test_a_tile_is_never_its_own_neighbour_among_equal_ones() -> None:
    features = np.repeat(np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32), 5, axis=0)
    _, found = nearest(whiten(features), 3)
    assert found.shape == (20, 3)
    assert (found != np.arange(20)[:, None]).all()


@pytest.mark.slow
def test_flipped_labels_of_real_tiles_are_found(real_data: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISTO_CACHE_DIR", os.environ.get("HISTO_TEST_FEATURES", str(work / "cache")))
    tiles = open_tiles(real_data / "crc5/train")
    features = features_for_audit([tiles], NetworkOptions(backbone="lite0"), ComputeOptions(device="cpu"), 0)
    white = whiten(features)
    said, _, cut = examine(white, tiles.labels, None, 0)
    before = margins(tiles.labels, said)
    for share, wanted, n_draws in ((0.01, (0.88, 0.85), 8), (0.05, (0.93, 0.88), 3)):  # a label more is 0.006 of 144
        draws = []
        for seed in range(11, 11 + n_draws):
            flipped, planted = flip(tiles.labels, share, seed)
            draws.append(Draw(margins(flipped, say_of_each(white, flipped, 0)), planted))
        trial = judge(draws, before, cut)
        assert trial.precision >= wanted[0], (share, trial)
        assert trial.recall >= wanted[1], (share, trial)


def test_issues_come_with_the_most_doubtful_first() -> None:
    said = np.array([[0.9, 0.1], [0.05, 0.95], [0.2, 0.8], [0.6, 0.4]])
    assert find_issues(np.zeros(4, np.int64), said, -0.3).rows.tolist() == [1, 2]
