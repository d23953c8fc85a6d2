"""How often the gate passes a candidate that is worse by just the margin, and how often one that is equal.

Studies are drawn from known truths and judged by the limits that the gate judges by (`histo_mlflow.evaluation.gains`); the
further conditions of the gate only lower the figures. Writes ``benchmarks/results/gate-error.json``; a few minutes on one core.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import RESULTS, write_results
from numpy.typing import NDArray

from histo_mlflow.console import format_table, say
from histo_mlflow.evaluation.evidence import Evidence, Layout
from histo_mlflow.evaluation.gains import (
    LEAST_LOST_SHARE,
    LEAST_WORST_LOSS,
    gains_in_accuracy,
    gains_of_patients,
    gains_of_units,
)
from histo_mlflow.evaluation.gate import ALPHA, alpha_of_look

MARGIN, LOSS_MARGIN = 0.01, 0.05
N_CLASSES = 9
TILES = (9, 18, 47, 200, 718, 7180)
PATIENTS = ((3, 240), (10, 72), (20, 36), (80, 9), (80, 90), (300, 24))
CORRELATION = 0.3
N_LOOKS = 10
_CRC_TILES = np.array([1338, 847, 339, 634, 1035, 592, 741, 421, 1233])  # of CRC-VAL-HE-7K

Array = NDArray[Any]


@dataclass(frozen=True)
class Truth:
    """How two models differ on a class of tiles: the share that only one of them gets right.

    Attributes:
        gained: Only the candidate, on every class.
        lost: Only the incumbent, on every class, if both are equal.
        loser: The class in which the candidate loses the whole margin, or None: a little of each.
    """

    gained: float
    lost: float
    loser: int | None = None

    def rates(self, margin: float) -> tuple[Array, Array]:
        """Return gained and lost shares of each class of a candidate that is worse by `margin` on average over the classes."""
        gained, lost = np.full(N_CLASSES, self.gained), np.full(N_CLASSES, self.lost)
        lost[slice(None) if self.loser is None else self.loser] += margin if self.loser is None else N_CLASSES * margin
        return gained, lost


TRUTHS = {
    "97 % right each, errors independent": Truth(0.03 * 0.97, 0.03 * 0.97),
    "1 % only one is right": Truth(0.01, 0.01),
    "the same errors but for the margin": Truth(0.0, 0.0),
    "one class alone loses": Truth(0.005, 0.005, loser=7),
    "92 % right each": Truth(0.08, 0.08),
}


def class_tiles(n_tiles: int, *, is_balanced: bool) -> Array:
    """Return the tiles of each class, one at least."""
    shares = np.full(N_CLASSES, 1 / N_CLASSES) if is_balanced else _CRC_TILES / _CRC_TILES.sum()
    tiles = np.maximum(1, np.floor(n_tiles * shares)).astype(int)
    while tiles.sum() != n_tiles:
        step = np.sign(n_tiles - tiles.sum())
        tiles[np.argmax(step * (n_tiles * shares - tiles))] += step
    return tiles


def draw_by_tiles(truth: Truth, tiles: Array, margin: float, n: int, rng: np.random.Generator) -> Evidence:
    """Return the evidence of `n` studies of independent tiles."""
    gained_share, lost_share = truth.rates(margin)
    gained = rng.binomial(tiles, gained_share, (n, N_CLASSES))
    lost = rng.binomial(tiles - gained, lost_share / (1 - gained_share))
    return Evidence((gains_in_accuracy(gained, lost, tiles),))


def patient_sizes(n_patients: int, n_tiles: int, *, is_equal: bool, seed: int = 0) -> Array:
    """Return the tiles of each patient: all the same, or of a log-normal distribution (sigma 1)."""
    sizes = np.ones(n_patients) if is_equal else np.exp(np.random.default_rng(seed).normal(size=n_patients))
    return np.maximum(1, np.round(n_tiles * sizes / sizes.sum())).astype(int)


def draw_by_patients(truth: Truth, sizes: Array, margin: float, n: int, rng: np.random.Generator) -> Evidence:
    """Return the evidence of `n` studies in which gains and losses differ from patient to patient (beta-binomial)."""
    gained_share = _beta(truth.gained, (n, len(sizes)), rng)
    lost_share = np.minimum(_beta(truth.lost + margin, gained_share.shape, rng), 1 - gained_share)
    gained = rng.binomial(sizes, gained_share)
    lost = rng.binomial(sizes - gained, np.clip(lost_share / np.maximum(1 - gained_share, 1e-9), 0, 1))
    by_tile = gains_in_accuracy(gained.sum(axis=1, keepdims=True), lost.sum(axis=1, keepdims=True), np.array([sizes.sum()]))
    return Evidence((by_tile, gains_of_patients((gained - lost) / sizes, sizes / sizes.mean(), LEAST_LOST_SHARE, 1.0)))


def _beta(mean: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    both = 1 / CORRELATION - 1
    return rng.beta(mean * both, (1 - mean) * both, shape) if mean else np.zeros(shape)


def draw_losses(n_tiles: int, n: int, rng: np.random.Generator, *, is_equal: bool) -> Array:
    """Return gains in log loss ``(n, n_tiles)`` of a candidate whose losses are much higher on a few tiles."""
    loss = rng.exponential(0.1, (2, n, n_tiles))
    is_error = rng.random((n, n_tiles)) < 0.03
    excess = is_error * rng.exponential(LOSS_MARGIN / 0.03, is_error.shape)
    return np.asarray(loss[0] - loss[1] - (0 if is_equal else excess))


def passes(evidence: Evidence, alpha: float = ALPHA) -> float:
    """Return the share of studies whose candidate passes."""
    return float((evidence.p_value(MARGIN) <= alpha).mean())


def run_tiles(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return error and power by number of tiles, class mix and truth."""
    return [
        {
            "tiles": n_tiles,
            "classes": "balanced" if is_balanced else "as in CRC-VAL-HE-7K",
            "truth": name,
            "error": passes(draw_by_tiles(truth, tiles, MARGIN, n, rng)),
            "power": passes(draw_by_tiles(truth, tiles, 0, n, rng)),
        }
        for n_tiles in TILES
        for is_balanced in (True, False)
        for tiles in [class_tiles(n_tiles, is_balanced=is_balanced)]
        for name, truth in TRUTHS.items()
    ]


def run_patients(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return error and power by number of patients, their sizes and truth; 0 where the set is refused."""
    found = []
    for n_patients, each in PATIENTS:
        for is_equal in (True, False):
            sizes = patient_sizes(n_patients, n_patients * each, is_equal=is_equal)
            is_refused = bool(
                Layout(
                    np.zeros(sizes.sum(), int), ("all",), np.repeat(np.arange(n_patients), sizes).astype(str)
                ).describe_lack()
            )
            for name, truth in TRUTHS.items():
                if truth.loser is None:
                    rates = [
                        0.0 if is_refused else passes(draw_by_patients(truth, sizes, worse, n, rng)) for worse in (MARGIN, 0.0)
                    ]
                    kind = f"{n_patients} x {each}" + ("" if is_equal else ", unequal")
                    found.append({"patients": kind, "truth": name, "error": rates[0], "power": rates[1]})
    return found


def run_looks(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return how often at least one of ten candidates at the margin passes on one set, which the incumbent shares."""
    found = []
    for n_tiles in TILES:
        tiles = class_tiles(n_tiles, is_balanced=True)
        old_wrong = rng.binomial(tiles, 0.03, (n, N_CLASSES))
        is_promoted = np.zeros(n, dtype=bool)
        for look in range(1, N_LOOKS + 1):
            gained = rng.binomial(old_wrong, 1 - 0.04)
            lost = rng.binomial(tiles - old_wrong, 0.04)
            p_values = gains_in_accuracy(gained, lost, tiles).p_value(MARGIN)
            is_promoted |= p_values <= alpha_of_look(look)
        found.append({"tiles": n_tiles, "error": float(is_promoted.mean())})
    return found


def run_losses(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return error and power of the condition on log loss by number of tiles."""

    def share(n_tiles: int, *, is_equal: bool) -> float:
        gains = draw_losses(n_tiles, n, rng, is_equal=is_equal)
        limits = gains_of_units(gains, -np.maximum(LEAST_WORST_LOSS, -gains.min(axis=1)))
        return float((limits.p_value(LOSS_MARGIN) <= ALPHA).mean())

    return [
        {"tiles": n_tiles, "error": share(n_tiles, is_equal=False), "power": share(n_tiles, is_equal=True)} for n_tiles in TILES
    ]


RUNS: dict[str, Callable[[int, np.random.Generator], list[dict[str, Any]]]] = {
    "tiles": run_tiles,
    "patients": run_patients,
    "looks": run_looks,
    "log_loss": run_losses,
}


def main() -> None:
    """Run all, print the tables and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4000, help="of each cell")
    options = parser.parse_args()
    found: dict[str, Any] = {"studies": options.studies, "alpha": ALPHA, "margin": MARGIN, "loss_margin": LOSS_MARGIN}
    for name, run in RUNS.items():
        n = options.studies // 4 if name == "log_loss" else options.studies  # thousands of numbers each
        found[name] = run(n, np.random.default_rng(0))
        header = list(found[name][0])
        rows = [[f"{value:.4f}" if isinstance(value, float) else str(value) for value in each.values()] for each in found[name]]
        say(f"\n{format_table(header, rows)}")
    write_results(RESULTS / "gate-error.json", found)


if __name__ == "__main__":
    main()
