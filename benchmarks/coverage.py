"""How often a 95 % interval holds the truth: studies are drawn from worlds whose truth is known, and every figure is counted.

A world has nine classes whose difficulty differs, a mix of classes (equal or random) and, where they are asked for, patients
whose difficulty differs too. The truth is the figure of 100,000 tiles (5,000 patients). Figures of a class are counted over all
classes.
Writes ``benchmarks/results/coverage.json`` after every cell; whole it takes most of an hour on 2 cores.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from common import RESULTS, describe_machine, write_results
from numpy.typing import NDArray
from scipy.special import softmax

from histo_mlflow.console import format_table, say
from histo_mlflow.evaluation.intervals import Floats, Units
from histo_mlflow.evaluation.metrics import CLASS_METRICS, OVERALL_METRICS, evaluate_predictions, statistics_of
from histo_mlflow.evaluation.predictions import Predictions

N_CLASSES, N_WORLDS = 9, 10
TILES = (47, 90, 200, 718, 7180)
PATIENTS = {3: 240, 5: 144, 10: 72, 20: 36, 80: 9}
"""Tiles of each, about 720 in all."""
_PATIENT_EFFECT = 1.2  # standard deviation; the classes lie about 4 apart
_SHOWN = 0.1
"""Of fewer studies than this share the coverage says nothing: such a cell counts as one without an interval."""


@dataclass(frozen=True)
class Cell:
    """What a study looks like: `n` tiles, or `n` patients."""

    n: int
    is_by_patient: bool
    is_even: bool
    accuracy: float

    @property
    def name(self) -> str:
        """In tables and files."""
        kind = (
            ("equal" if self.is_even else "unequal") if self.is_by_patient else ("even mix" if self.is_even else "random mix")
        )
        return f"{self.n} {'patients' if self.is_by_patient else 'tiles'}, {kind}, accuracy {self.accuracy}"


CELLS = [
    *(Cell(n, False, is_even, accuracy) for n, is_even, accuracy in product(TILES, (True, False), (0.98, 0.9))),
    *(Cell(n, True, is_even, accuracy) for n, is_even, accuracy in product(PATIENTS, (True, False), (0.97, 0.88))),
]


class World:
    """A population of tiles: its classes, patients and model."""

    def __init__(self, cell: Cell, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.cell = cell
        is_even_mix = cell.is_even and not cell.is_by_patient
        even = np.full(N_CLASSES, 1 / N_CLASSES)
        self.mix = even if is_even_mix else 0.9 * rng.dirichlet(np.full(N_CLASSES, 2.0)) + 0.1 * even
        self.of_class, self.sharpness = rng.normal(0, 0.35, N_CLASSES), np.exp(rng.normal(0, 0.2))
        low, self.separation, high = 0.0, 4.0, 9.0
        for _ in range(14):
            said = self.draw(np.random.default_rng(1), np.ones(20_000, np.int64))
            low, high = (low, self.separation) if 1 - said.is_wrong.mean() > cell.accuracy else (self.separation, high)
            self.separation = (low + high) / 2

    def draw(self, rng: np.random.Generator, sizes: NDArray[np.int64]) -> Predictions:
        """Return what the model says of as many patients as there are `sizes`, with so many tiles each."""
        patient = np.repeat(np.arange(len(sizes)), sizes)
        labels = rng.choice(N_CLASSES, size=len(patient), p=self.mix)
        separation = self.separation + self.of_class[labels]
        if self.cell.is_by_patient:
            separation = separation + _PATIENT_EFFECT * rng.normal(size=len(sizes))[patient]
        scores = rng.normal(size=(len(patient), N_CLASSES))
        scores[np.arange(len(labels)), labels] += np.maximum(separation, 0.2)
        probabilities = softmax(0.9 * self.separation * self.sharpness * scores, axis=1)
        groups = np.array([f"p{k}" for k in patient]) if self.cell.is_by_patient else None
        return Predictions(labels, probabilities, tuple("ABCDEFGHI"), groups)

    def study(self, rng: np.random.Generator) -> Predictions:
        """Return what the model says of the tiles of one study."""
        cell = self.cell
        if not cell.is_by_patient:
            return self.draw(rng, np.ones(cell.n, np.int64))
        share = np.ones(cell.n) if cell.is_even else rng.lognormal(0, 1, cell.n)
        return self.draw(rng, np.maximum(1, np.round(share / share.sum() * cell.n * PATIENTS[cell.n])).astype(np.int64))


@cache
def world_and_truth(cell: Cell, seed: int) -> tuple[World, dict[str, Floats]]:
    """Return a world and the true figures of its model."""
    world = World(cell, seed)
    said = world.draw(np.random.default_rng(seed), np.full(5000, 20) if cell.is_by_patient else np.ones(100_000, np.int64))
    return world, {name: np.atleast_1d(each) for name, each in Units(len(said.labels)).value(statistics_of(said)).items()}


def count(cell: Cell, seed: int) -> dict[str, tuple[int, int, int]]:
    """Return, of one study, for each metric how many figures there are, have an interval, and have the truth in it."""
    world, truth = world_and_truth(cell, seed % N_WORLDS)
    found = evaluate_predictions(world.study(np.random.default_rng(seed)))
    counted = {}
    for name in (*OVERALL_METRICS, *CLASS_METRICS):
        own = [found.overall[name]] if name in OVERALL_METRICS else [row.estimates[name] for row in found.per_class]
        pairs = [(each, true) for each, true in zip(own, truth[name], strict=True) if each.is_defined]
        shown = [(each, true) for each, true in pairs if each.has_interval]
        counted[name] = len(pairs), len(shown), sum(each.low <= true <= each.high for each, true in shown)
    return counted


def measure(cell: Cell, n_studies: int, pool: ProcessPoolExecutor) -> dict[str, dict[str, float | None]]:
    """Return of each metric the share of figures with an interval, and the share of these that hold the truth."""
    studies = list(pool.map(count, [cell] * n_studies, range(n_studies), chunksize=max(1, n_studies // 20)))
    result: dict[str, dict[str, float | None]] = {}
    for name in studies[0]:
        n, shown, held = np.sum([study[name] for study in studies], axis=0)
        result[name] = {"shown": shown / max(n, 1), "coverage": held / shown if shown >= _SHOWN * n and shown else None}
    return result


def main() -> None:
    """Measure all cells, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--studies", type=int, default=300, help="studies of each cell; of 7,180 tiles a third of them")
    parser.add_argument("--only", default="", help="cells whose name holds this, such as `47 tiles` or `patients`")
    parser.add_argument("--output", type=Path, default=RESULTS / "coverage.json", help="the JSON file")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    cells = {}
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for cell in CELLS:
            if options.only in cell.name:
                n_studies = options.studies // 3 if cell.n > 1000 else options.studies
                cells[cell.name] = measure(cell, n_studies, pool)
                say(f"{cell.name} ({n_studies} studies)\n{format_cell(cells[cell.name])}")
                write_results(options.output, {"machine": describe_machine("cpu"), "studies": options.studies, "cells": cells})


def format_cell(cell: dict[str, dict[str, float | None]]) -> str:
    """Return a cell as a table; coverage outside 0.92 to 0.98 is marked."""
    rows = []
    for name, each in cell.items():
        coverage = each["coverage"]
        mark = "" if coverage is None or 0.92 <= coverage <= 0.98 else "*"
        rows.append([name, f"{each['shown']:.2f}", "no interval" if coverage is None else f"{coverage:.3f}{mark}"])
    return format_table(["figure", "shown", "coverage"], rows)


if __name__ == "__main__":
    main()
