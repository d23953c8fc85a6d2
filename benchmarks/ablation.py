"""What each augmentation and each option of the optimiser is worth: `python benchmarks/ablation.py --data TILES`.

Half of the tiles train, half validate; each seed draws another split, other first weights and another order, the same for all
arms. The epoch is the one of the lowest validation loss. Every chosen network is also asked about the validation tiles after a
change of stain, after JPEG compression, and in their eight symmetries, none of which selects anything.
"""

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from common import RESULTS, describe_machine, write_results
from sklearn.metrics import balanced_accuracy_score

from histo_mlflow.console import format_table, say
from histo_mlflow.learning.augmentation import StainJitter
from histo_mlflow.learning.compute import seed_everything
from histo_mlflow.learning.fit import fit
from histo_mlflow.learning.infer import cross_entropy_of, infer
from histo_mlflow.learning.options import Recipe
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.options import build
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import HoldOutOptions
from histo_mlflow.tiles.perturbations import jpeg
from histo_mlflow.tiles.splits import hold_out

_FIGURES = ("loss", "accuracy", "balanced_accuracy", "restained", "jpeg30", "steady")


@dataclass(frozen=True)
class _Arm:
    augmentation: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)


def _arms(epochs: int) -> dict[str, _Arm]:
    cutoff, late = round(0.6 * epochs), round(0.9 * epochs)
    always = {"augment": "symmetries", "aug_cutoff": epochs}
    recipe = {"aug_cutoff": cutoff}
    return {
        "none": _Arm({"augment": "none"}),
        f"seed, until {cutoff}": _Arm(recipe),
        "seed, never off": _Arm({"aug_cutoff": epochs}),
        f"symmetries, until {cutoff}": _Arm({"augment": "symmetries", "aug_cutoff": cutoff}),
        f"symmetries, until {late}": _Arm({"augment": "symmetries", "aug_cutoff": late}),
        "symmetries, always": _Arm(always),
        "flips alone, always": _Arm({"augment": "none", "flips": "all"}),
        "rotations alone, always": _Arm({"augment": "none", "rotations": "all"}),
        "symmetries + stain, always": _Arm({**always, "stain": "all"}),
        "seed + label smoothing 0.1": _Arm(recipe, {"label_smoothing": 0.1}),
        "seed + average of weights 0.98": _Arm(recipe, {"ema_decay": 0.98}),
        "seed, gradients not clipped": _Arm(recipe, {"clip_norm": 0.0}),
        "seed + balanced class weights": _Arm(recipe, {"class_weights": "balanced"}),
        "seed + weight decay 0.01": _Arm(recipe, {"weight_decay": 0.01}),
    }


def main() -> None:
    """Run all arms seed by seed, so that an interrupted run still compares all arms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="demo", help="tiles, as in `histo train --data`")
    parser.add_argument("--image-size", type=int, default=0, help="edge length in pixels; 0 = as stored")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arm", action="append", help="an arm by its name, perhaps several times; without it all of them")
    parser.add_argument("--name", default="ablation", help="name of the file in benchmarks/results")
    asked = parser.parse_args()
    arms = _arms(asked.epochs)
    if unknown := set(asked.arm or ()) - set(arms):
        parser.error(f"no arm is called {', '.join(sorted(unknown))}; there are: {'; '.join(arms)}")
    arms = {name: arm for name, arm in arms.items() if not asked.arm or name in asked.arm}
    rows: list[dict[str, Any]] = []
    for seed in range(asked.seeds):
        for name, arm in arms.items():
            started = time.perf_counter()
            figures = _run(asked.data, asked.image_size, asked.epochs, arm, seed)
            rows.append({"arm": name, "seed": seed, **figures})
            say(f"seed {seed}, {name}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
                + f" ({time.perf_counter() - started:.0f} s)")  # fmt: skip
            facts = {"data": Path(asked.data).name, "image_size": asked.image_size, "epochs": asked.epochs}
            write_results(RESULTS / f"{asked.name}.json", {"machine": describe_machine("cpu"), **facts, "runs": rows})
    say(_describe(rows, list(arms)))


def _run(data: str, image_size: int, epochs: int, arm: _Arm, seed: int) -> dict[str, float]:
    tiles = open_tiles(data, image_size=image_size)
    split = hold_out(tiles, HoldOutOptions(val_fraction=0.5), seed=seed)
    size = image_size or tiles.tile_size_px
    seed_everything(seed)
    network = TileClassifier(n_classes=len(tiles.classes), tile_size_px=size)
    recipe = build(Recipe, {"epochs": epochs, "image_size": image_size, "seed": seed, **arm.fit, **arm.augmentation})
    best = fit(network, split, recipe, on_epoch=lambda _: None)
    images, labels = np.asarray(tiles.images[split.val.rows]), split.val.labels

    def ask(changed: np.ndarray) -> np.ndarray:
        return infer(network, np.ascontiguousarray(changed), compute=best.compute.in_fp32(), description=None)

    logits = ask(images)
    predicted = logits.argmax(1)
    as_tensor = torch.from_numpy(images)
    drawn = StainJitter(0.2).draw(len(images), torch.Generator().manual_seed(1))
    restained = ask(StainJitter(0.2).apply(as_tensor, drawn).numpy()).argmax(1)
    compressed = ask(np.stack([jpeg(image, 30) for image in images])).argmax(1)
    turned = [np.rot90(flipped, k, (1, 2)) for flipped in (images, images[:, :, ::-1]) for k in range(4)]
    steady = np.all([ask(each).argmax(1) == predicted for each in turned[1:]], axis=0)
    return {
        "loss": cross_entropy_of(logits, labels),
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "restained": float((restained == labels).mean()),
        "jpeg30": float((compressed == labels).mean()),
        "steady": float(steady.mean()),
        "best_epoch": float(best.best_epoch),
    }


def _describe(rows: list[dict[str, Any]], names: list[str]) -> str:
    table = []
    for name in names:
        mine = [row for row in rows if row["arm"] == name]
        cells = []
        for figure in _FIGURES:
            values = [row[figure] for row in mine]
            cells.append(f"{mean(values):.3f} ({stdev(values):.3f})" if len(values) > 1 else f"{values[0]:.3f}")
        table.append([name, *cells])
    return f"{format_table(['mean (sd)', *_FIGURES], table)}\nn = {len(table) and len(rows) // len(table)} seeds"


if __name__ == "__main__":
    main()
