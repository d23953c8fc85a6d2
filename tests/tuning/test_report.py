"""How much of a gain is noise, and what pruning over folds goes by."""

import math
from typing import Any

import numpy as np
import optuna
import pytest

from histo_mlflow.errors import NonFiniteLossError
from histo_mlflow.options import build
from histo_mlflow.tiles.options import HoldOutOptions
from histo_mlflow.tiles.splits import Split, hold_out
from histo_mlflow.tiles.tile_set import TileSet
from tuning.objective import Objective
from tuning.options import SearchOptions, Tune
from tuning.report import Noise, describe_cost, repeat
from tuning.study import _pruner

_VALUES = {"learning_rate": 1e-3, "aug_cutoff": 2}
_DEFAULTS = {"learning_rate": 2e-3, "aug_cutoff": 12}


class _Told(Objective):
    """Gives losses without learning, and diverges with the default setting from seed 2."""

    def learn(self, values: dict[str, Any], name: str, tags: dict[str, object], _trial: optuna.Trial | None = None) -> float:
        _seen.append((values["seed"], self.splits[0].val.rows.tolist()))
        if name == "default setting, seed 2":
            raise NonFiniteLossError("the loss became nan")
        return values["seed"] + (tags["histo.repeat"] == "default")


_seen: list[tuple[int, list[int]]] = []


def test_repeats_are_on_splits_of_their_own_and_outlive_one_that_diverges(tiny_tiles: TileSet) -> None:
    def cut(seed: int) -> list[Split]:
        return [hold_out(tiny_tiles, HoldOutOptions(1 / 3), seed=seed)]

    study = optuna.create_study()
    distributions = {"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2),
                     "aug_cutoff": optuna.distributions.IntDistribution(0, 4)}  # fmt: skip
    study.add_trial(optuna.trial.create_trial(value=1.0, params=_VALUES, distributions=distributions))
    _seen.clear()
    chosen = cut(0)
    objective = _Told(None, None, chosen, {"epochs": 4, "seed": 0, **_DEFAULTS}, None, 1)  # type: ignore[arg-type]
    asked = build(Tune, {"trials": 1, "repeats": 3})
    assert "then 3 repeats each" in describe_cost(study, asked, chosen[0])
    noise = repeat(study, objective, 3, cut)
    assert noise == Noise([1, 2, 3], [2, math.inf, 4], 0.5)
    assert [seed for seed, _ in _seen] == [1, 1, 2, 2, 3, 3]
    assert [rows for _, rows in _seen[::2]] == [rows for _, rows in _seen[1::2]], "both settings on the same split"
    assert len({tuple(rows) for _, rows in _seen} | {tuple(chosen[0].val.rows)}) == 4
    assert "over 2 other seeds and splits" in noise.describe()
    assert "diverged and left out: default 1 of 3" in noise.describe()
    assert repeat(study, objective, 3, cut) == noise
    assert len(_seen) == 6, "what was repeated is not repeated again"
    assert "repeats" not in describe_cost(study, asked, chosen[0])
    assert "too few repeats" in Noise([1, math.inf], [2, 3], 0.5).describe()


@pytest.mark.parametrize("n_repeats", [3, 10])
def test_equal_settings_are_not_told_apart(n_repeats: int) -> None:
    """What a split has to say of a setting is drawn anew for each: 0.05 nats, as is the chance of training."""
    random = np.random.default_rng(n_repeats)
    losses = 0.5 + random.normal(0, math.hypot(0.05, 0.03), (400, 2, n_repeats))
    verdicts = ["more than noise" in Noise(best.tolist(), default.tolist(), 0.25).describe() for best, default in losses]
    assert np.mean(verdicts) <= 0.025
    assert "more than noise" in Noise([0.5] * 3, [0.7, 0.71, 0.69], 0.25).describe()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_pruning_over_folds_compares_the_same_folds() -> None:
    """The folds differ more than the settings: only a trial that is worse on each of three is stopped, and not before."""
    study = optuna.create_study(pruner=_pruner(SearchOptions(folds=5), epochs=4))
    of_fold = np.array([0.9, 0.2, 0.5, 0.7, 0.3])

    def run(gap: list[float]) -> int:
        """Return after how many folds the trial was stopped, 5 for none."""
        trial = study.ask()
        for fold, loss in enumerate(of_fold + gap, start=1):
            trial.report(loss, fold)
            if fold < len(of_fold) and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return fold
        study.tell(trial, float(np.mean(of_fold + gap)))
        return len(of_fold)

    assert run([0] * 5) == 5
    assert run([0.1, 0.2, 0.15, 0.1, 0.1]) == 3
    assert run([0.1, -0.3, -0.1, -0.1, -0.1]) == 5, "worse on the first fold alone"
