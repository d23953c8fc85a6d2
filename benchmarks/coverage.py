"""How often a 95 % interval holds the truth: studies are drawn from worlds whose truth is known, and every figure is counted.

Cells differ in the number of tiles or patients, the mix of classes or sizes of patients, the accuracy, and whether one model is
evaluated or two are compared; each has ten worlds (`worlds.py`). Figures of a class are counted over all classes.

Chance moves the coverage of 300 studies by 0.013 (one standard error) either way, so that of hundreds of figures some leave
0.92 to 0.98 though nothing is amiss. A cell in which a figure lies outside, or within 1.5 standard errors of an edge, is
therefore looked at again: it gets 300 more studies, up to 1,500 (of 7,180 tiles 600), and all of them count, the first ones
too. Writes ``benchmarks/results/coverage.json`` after every cell.
"""

import argparse
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product, repeat
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, describe_machine, write_results
from numpy.typing import NDArray
from worlds import Kind, World

from histo_mlflow.console import format_table, say
from histo_mlflow.evaluation.intervals import Estimate, Floats
from histo_mlflow.evaluation.metrics import CLASS_METRICS, evaluate_predictions
from histo_mlflow.evaluation.paired import compare_predictions

N_WORLDS, BATCH, MOST_STUDIES, MOST_OF_LARGE = 10, 300, 1500, 600
LOWEST, HIGHEST = 0.92, 0.98
LARGE = 7180
PATIENTS = {3: 240, 5: 144, 10: 72, 20: 36, 80: 9}
"""Tiles of each, about 720 in all."""
TRUE_TILES, TRUE_TILES_OF_MANY = 200_000, 1_000_000
"""That a truth is computed from: each of its own patient, which varies least; the more, the more tiles a study has."""
_LOOK = 30
"""Studies after which a cell without any interval is left."""
PAIR = "two models, "
TABLES = (
    (
        "",
        ("balanced_accuracy", "accuracy", "macro_f1", "matthews_correlation", "macro_auroc", "log_loss", "brier_score", "aurc"),
    ),
    ("", ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc")),
    (PAIR, ("balanced_accuracy", "accuracy", "macro_f1", "log_loss", "brier_score", "sensitivity")),
)
"""Of docs/evaluation.md: the first words of its cells, and its figures."""
_SHOWN = 0.1
"""Of fewer figures than this share the coverage says nothing: they count as figures without an interval."""

Counts = NDArray[np.int64]
"""Of one figure: how many there are, have an interval, have the truth in it."""


@dataclass(frozen=True)
class Cell:
    """What a study looks like: `n` tiles, or `n` patients, and one model or two."""

    n: int
    is_by_patient: bool
    is_even: bool
    accuracy: float
    is_pair: bool = False

    @property
    def name(self) -> str:
        """In tables and files."""
        if self.is_by_patient:
            words = f"{self.n} patients, {'equal' if self.is_even else 'unequal'}"
        else:
            words = f"{self.n} tiles, {'even' if self.is_even else 'random'} mix"
        return f"{PAIR if self.is_pair else ''}{words}, accuracy {self.accuracy}"

    @property
    def kind(self) -> Kind:
        """Of its worlds."""
        return Kind(self.is_by_patient, self.is_even and not self.is_by_patient, self.accuracy)

    @property
    def most_studies(self) -> int:
        """That it gets."""
        return MOST_OF_LARGE if self.n >= LARGE else MOST_STUDIES

    def sizes(self, rng: np.random.Generator) -> Counts:
        """Return how many tiles each patient has, or one for each tile."""
        if not self.is_by_patient:
            return np.ones(self.n, np.int64)
        share = np.ones(self.n) if self.is_even else rng.lognormal(0, 1, self.n)
        return np.maximum(1, np.round(share / share.sum() * self.n * PATIENTS[self.n])).astype(np.int64)


CELLS = [
    *(Cell(*each) for each in product((47, 90, 200, 718), (False,), (True, False), (0.98, 0.9))),
    *(Cell(*each) for each in product(PATIENTS, (True,), (True, False), (0.97, 0.88))),
    *(Cell(*each, is_pair=True) for each in product((47, 200, 718), (False,), (True, False), (0.98, 0.9))),
    *(Cell(*each, is_pair=True) for each in product((20, 80), (True,), (True, False), (0.97, 0.88))),
    *(Cell(LARGE, *each) for each in product((False,), (True, False), (0.98, 0.9))),
]


@dataclass(frozen=True, eq=False)
class Setting:
    """A world with the truth about its first model, or about how its second differs."""

    world: World
    truth: Mapping[str, Floats]

    @classmethod
    def of(cls, cell: Cell, seed: int, n_tiles: int | None = None) -> "Setting":
        """Make the `seed`-th world of a cell, with the truth of `n_tiles` tiles."""
        world = World(cell.kind, seed)
        n = n_tiles or (TRUE_TILES if cell.is_pair or cell.is_by_patient else TRUE_TILES_OF_MANY)
        return cls(world, world.true_differences(n) if cell.is_pair else world.truth(n))


def estimate(cell: Cell, world: World, seed: int) -> dict[str, list[Estimate]]:
    """Return all figures of one study."""
    rng = np.random.default_rng([seed, 3])
    sizes = cell.sizes(rng)
    if cell.is_pair:
        compared = compare_predictions(*world.draw_pair(rng, sizes))
        return {**{name: [each] for name, each in compared.differences.items()}, "sensitivity": list(compared.sensitivity)}
    found = evaluate_predictions(world.draw(rng, sizes))
    of_classes = {name: [row.estimates[name] for row in found.per_class] for name in CLASS_METRICS}
    return {**{name: [each] for name, each in found.overall.items()}, **of_classes}


def count(cell: Cell, setting: Setting, seed: int) -> dict[str, Counts]:
    """Return, of one study, how many figures of each name there are, have an interval, and have the truth in it."""
    counted = {}
    for name, estimates in estimate(cell, setting.world, seed).items():
        pairs = [(each, true) for each, true in zip(estimates, setting.truth[name], strict=True) if each.is_defined]
        shown = [(each, true) for each, true in pairs if each.has_interval]
        counted[name] = np.array([len(pairs), len(shown), sum(each.low <= true <= each.high for each, true in shown)])
    return counted


def measure(cell: Cell, settings: list[Setting], n_most: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Return how many studies a cell got, and how often each figure has an interval and this holds the truth."""
    totals: dict[str, Counts] = {}
    n, n_next = 0, _LOOK
    while n < n_most and (n <= _LOOK or any(needs_more(total, n) for total in totals.values())):
        seeds = range(n, min(n_next, n_most))
        studies = pool.map(count, repeat(cell), [settings[k % N_WORLDS] for k in seeds], seeds, chunksize=10)
        for study in studies:
            for name, counted in study.items():
                totals[name] = totals.get(name, np.zeros(3, np.int64)) + counted
        n, n_next = seeds.stop, (seeds.stop // BATCH + 1) * BATCH
        if not any(shown for _, shown, _ in totals.values()):
            break
    return {"studies": n, "figures": {name: describe(total) for name, total in totals.items()}}


def needs_more(total: Counts, n_studies: int) -> bool:
    """Return whether the coverage of a figure lies outside of what is asked, or so near to an edge that chance may decide."""
    coverage, n = describe(total)["coverage"], min(int(total[1]), n_studies)
    if coverage is None:
        return False
    low, high = (1.5 * math.sqrt(edge * (1 - edge) / n) for edge in (LOWEST, HIGHEST))
    return not LOWEST + low <= coverage <= HIGHEST - high


def describe(total: Counts) -> dict[str, float | None]:
    """Return the share of figures with an interval, and of these the share that holds the truth; None for hardly any."""
    n, shown, held = total.tolist()
    return {"shown": shown / max(n, 1), "coverage": held / shown if shown and shown >= _SHOWN * n else None}


def main() -> None:
    """Measure all cells, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--studies", type=int, default=MOST_STUDIES, help="at most, of each cell")
    parser.add_argument(
        "--only", default="", help="cells whose name begins so (`47 tiles`, `two models`); others stay in the file"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--output", type=Path, default=RESULTS / "coverage.json", help="the JSON file")
    parser.add_argument("--tables", action="store_true", help="only print the tables of docs/evaluation.md, from the file")
    options = parser.parse_args()
    is_kept = options.output.exists() and (options.tables or options.only)
    cells: dict[str, Any] = json.loads(options.output.read_text())["cells"] if is_kept else {}
    if options.tables:
        say("\n\n".join([*(tabulate(cells, *each) for each in TABLES), summarise(cells)]))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    settings: dict[tuple[Kind, bool], list[Setting]] = {}
    with ProcessPoolExecutor(max_workers=options.workers) as pool:
        for cell in CELLS:
            if cell.name.startswith(options.only):
                key = cell.kind, cell.is_pair
                if key not in settings:
                    settings[key] = list(pool.map(Setting.of, repeat(cell, N_WORLDS), range(N_WORLDS)))
                found = measure(cell, settings[key], min(options.studies, cell.most_studies), pool)
                cells[cell.name] = found
                say(f"{cell.name} ({found['studies']} studies)\n{format_figures(found['figures'])}")
                write_results(options.output, {"machine": describe_machine("cpu"), "cells": cells})
    say(summarise(cells))


def tabulate(cells: Mapping[str, Any], prefix: str, names: tuple[str, ...]) -> str:
    """Return lowest and highest coverage of figures over the kinds of worlds, a row for each size of a study, in Markdown."""
    asked = {name.removeprefix(prefix): each for name, each in cells.items() if name.startswith(PAIR) is (prefix == PAIR)}
    sizes = dict.fromkeys(name.split(",")[0] for name in asked)
    rows = [f"| study | {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for size in sizes:
        alike = [found["figures"] for name, found in asked.items() if name.startswith(f"{size},")]
        values = [[each[name]["coverage"] for each in alike if each[name]["coverage"] is not None] for name in names]
        shown = [f"{min(each):.3f} to {max(each):.3f}".replace("0.", ".") if each else "none" for each in values]
        rows.append(f"| {size} | {' | '.join(shown)} |")
    return "\n".join(rows)


def format_figures(figures: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return those of a cell as a table; coverage outside of what is asked is marked."""
    rows = [
        [name, f"{each['shown']:.2f}", "no interval" if each["coverage"] is None else f"{each['coverage']:.3f}{_mark(each)}"]
        for name, each in figures.items()
    ]
    return format_table(["figure", "shown", "coverage"], rows)


def _mark(figure: Mapping[str, float | None]) -> str:
    return "" if figure["coverage"] is None or LOWEST <= figure["coverage"] <= HIGHEST else "*"


def summarise(cells: Mapping[str, Any]) -> str:
    """Return how many figures hold, and which do not."""
    figures = {f"{cell}: {name}": each for cell, found in cells.items() for name, each in found["figures"].items()}
    shown = {name: each for name, each in figures.items() if each["coverage"] is not None}
    outside = [f"{name} {each['coverage']:.3f}" for name, each in shown.items() if _mark(each)]
    return "\n".join([f"{len(figures)} figures, {len(shown)} with an interval, {len(outside)} outside:", *outside])


if __name__ == "__main__":
    main()
