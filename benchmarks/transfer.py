"""How ImageNet weights are best fine-tuned on real tissue: `python benchmarks/transfer.py --data TILES --name NAME`.

Half of the tiles train, half validate, of each class as many as asked for; each seed draws other halves, another first head and
another order, the same for all settings. The epoch is the one of the lowest validation loss. All settings that the lists make
are tried; those that the file has already are not measured again, so a table grows list by list.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from common import RESULTS, describe_machine, write_results

from histo_mlflow.console import format_table, say
from histo_mlflow.evaluation.confusion import epoch_figures
from histo_mlflow.jobs.train import Train
from histo_mlflow.options import build
from histo_mlflow.pipeline.inputs import LearningInputs, open_learning_inputs
from histo_mlflow.pipeline.split import run_split
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet

_SEARCHED = {
    "trainable": "all gradual", "learning_rate": "1e-4 3e-4 1e-3", "layer_decay": "0.6 0.75 0.9 1", "weight_decay": "0.05",
    "head_epochs": "1", "epochs": "6",
}  # fmt: skip
_FIGURES = ("loss", "accuracy", "balanced_accuracy")


def main() -> None:
    """Measure what the file lacks, seed by seed, and show its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", required=True, help="real tiles, as `histo train --data`")
    parser.add_argument("--name", required=True, help="of the file in benchmarks/results")
    parser.add_argument("--backbone", default="lite0", help="as `histo train --backbone`")
    parser.add_argument("--image-size", type=int, default=0, help="edge length in pixels; 0 = as stored")
    parser.add_argument("--per-class", type=int, default=0, help="tiles of each class that are used; 0 = all")
    parser.add_argument("--seeds", type=int, default=2)
    for name, values in _SEARCHED.items():
        parser.add_argument(f"--{name.replace('_', '-')}", nargs="+", default=values.split())
    asked = parser.parse_args()
    shared = {"data": asked.data, "backbone": asked.backbone, "image_size": asked.image_size}
    config = build(Train, shared)
    inputs, config = open_learning_inputs(config)
    file = RESULTS / f"{asked.name}.json"
    rows = json.loads(file.read_text())["runs"] if file.exists() else []
    known = {json.dumps(_setting_of(row)) for row in rows}
    for seed in range(asked.seeds):
        split = _halve(inputs.tiles, asked.per_class, seed)
        for values in product(*(getattr(asked, name) for name in _SEARCHED)):
            setting = {"seed": seed, **{name: _number(value) for name, value in zip(_SEARCHED, values, strict=True)}}
            if json.dumps(setting) in known:
                continue
            rows.append(setting | _learn(inputs, split, shared | setting))
            say(", ".join(f"{key} {value if isinstance(value, str) else f'{value:.4g}'}" for key, value in rows[-1].items()))
            facts = {**shared, "data": "/".join(Path(asked.data).parts[-2:]), "per_class": asked.per_class}
            write_results(file, {"machine": describe_machine("cpu"), **facts, "runs": rows})
    say(_describe(rows))


def _number(value: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _setting_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("seed", *_SEARCHED)}


def _halve(tiles: TileSet, per_class: int, seed: int) -> Split:
    """Return every other tile of each class, in an order of the seed, to learn from, and the rest to validate on."""
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(np.flatnonzero(tiles.labels == label)) for label in range(len(tiles.classes))]
    drawn = [rows[:per_class] if per_class else rows for rows in drawn]
    train, val = (np.sort(np.concatenate([rows[half::2] for rows in drawn])) for half in (0, 1))
    return Split.of(tiles, train, val)


def _learn(inputs: LearningInputs, split: Split, values: dict[str, Any]) -> dict[str, float]:
    started = time.perf_counter()
    result = run_split(inputs, split, build(Train, values).recipe, on_epoch=lambda _: None)
    figures = epoch_figures(result.val.labels, result.val.logits.argmax(1), len(inputs.tiles.classes))
    return {
        "loss": result.val.loss,
        **{name: figures[name] for name in _FIGURES[1:]},
        "best_epoch": result.best.best_epoch,
        "seconds": time.perf_counter() - started,
    }


def _describe(rows: list[dict[str, Any]]) -> str:
    varied = [name for name in _SEARCHED if len({row[name] for row in rows}) > 1]
    settings = {tuple(row[name] for name in varied): None for row in rows}
    table = []
    for setting in settings:
        mine = [row for row in rows if tuple(row[name] for name in varied) == setting]
        cells = []
        for figure in _FIGURES:
            of_seeds = [row[figure] for row in mine]
            cells.append(f"{mean(of_seeds):.3f} ({stdev(of_seeds) if len(mine) > 1 else 0:.3f})")
        table.append([*map(str, setting), *cells, f"{mean(row['seconds'] for row in mine):.0f}"])
    return format_table([*varied, *(f"{name}, mean (sd)" for name in _FIGURES), "seconds"], table)


if __name__ == "__main__":
    main()
