"""The short form of benchmarks/gate_error.py: fixed seeds, fewer studies, the cells that are hardest to hold."""

import importlib
from types import ModuleType

import numpy as np
import pytest

from histo_mlflow.evaluation.gate import ALPHA
from tests.conftest import PROJECT

N_STUDIES = 1000
ALLOWED = ALPHA + 2 * (ALPHA / N_STUDIES) ** 0.5
"""With two standard errors for so few studies."""


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    return importlib.import_module("gate_error")


@pytest.mark.parametrize("is_balanced", [True, False])
@pytest.mark.parametrize("n_tiles", [9, 18, 47, 200, 718, 7180])
def test_the_error_over_tiles_is_held(simulation: ModuleType, n_tiles: int, is_balanced: bool) -> None:
    tiles, rng = simulation.class_tiles(n_tiles, is_balanced=is_balanced), np.random.default_rng(1)
    for truth in simulation.TRUTHS.values():
        assert simulation.passes(simulation.draw_by_tiles(truth, tiles, 0.01, N_STUDIES, rng)) <= ALLOWED


@pytest.mark.parametrize("is_equal", [True, False])
@pytest.mark.parametrize(("n_patients", "each"), [(3, 240), (10, 72), (20, 36), (80, 9), (80, 90), (300, 24)])
def test_the_error_over_patients_is_held(simulation: ModuleType, n_patients: int, each: int, is_equal: bool) -> None:
    sizes, rng = simulation.patient_sizes(n_patients, n_patients * each, is_equal=is_equal), np.random.default_rng(1)
    for truth in simulation.TRUTHS.values():
        assert simulation.passes(simulation.draw_by_patients(truth, sizes, 0.01, N_STUDIES, rng)) <= ALLOWED


def test_the_error_over_ten_decisions_is_held(simulation: ModuleType) -> None:
    assert max(each["error"] for each in simulation.run_looks(N_STUDIES, np.random.default_rng(1))) <= 0.05


def test_the_size_that_is_said_to_be_needed_gives_the_power(simulation: ModuleType) -> None:
    truth, rng = simulation.Truth(0.0125, 0.0125), np.random.default_rng(1)
    for is_balanced, needed in ((True, 2200), (False, 2800)):
        tiles = simulation.class_tiles(needed, is_balanced=is_balanced)
        layout = simulation.Layout(np.repeat(np.arange(9), tiles), tuple("ABCDEFGHI"))
        assert layout.tiles_needed(0.01, ALPHA) == pytest.approx(needed, rel=0.05)
        assert simulation.passes(simulation.draw_by_tiles(truth, tiles, 0, N_STUDIES, rng)) == pytest.approx(0.8, abs=0.05)
