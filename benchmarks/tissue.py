"""What models learn on real tissue: each way to train on each set, over seeds, as in docs/results.md.

The sets are those of tests (HISTO_REAL_DATA, or --data): 718 thumbnails of nine colorectal classes, crc5, tiles of GlaS and of
BreakHis with their patients. Every study is one call of `cv` or `train` for each seed, as a user would make it, and its
figures are those of the run: out of fold in a cross-validation, of the test tiles where there are some.

Writes ``benchmarks/results/tissue.json`` after every run, each with its processor; runs that are there already are not
repeated. With --figure it draws what the file has.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from common import RESULTS, describe_machine, write_results

import histo_mlflow
from histo_mlflow.console import format_table, say

FIGURES = ("accuracy", "balanced_accuracy", "log_loss", "macro_auroc")
LITE0: dict[str, Any] = {"backbone": "lite0", "weights": "imagenet"}
HEAD = LITE0 | {"trainable": "head", "image_size": 224}
AUGMENTED, PLAIN = {"augment": "symmetries", "aug_cutoff": 4}, {"augment": "none"}
B3 = {"weights": "none", "epochs": 8, "image_size": 32}
WAYS: dict[str, dict[str, Any]] = {
    "lite0 head": HEAD | {"augment": "none"},
    "lite0 head, 8 views": HEAD | {"augment": "symmetries"},
    "lite0 all": LITE0 | {"trainable": "all"} | AUGMENTED,
    "lite0 gradual": LITE0 | {"trainable": "gradual"} | AUGMENTED,
    "lite0 all, no augmentation": LITE0 | {"trainable": "all"} | PLAIN,
    "lite0 gradual, no augmentation": LITE0 | {"trainable": "gradual"} | PLAIN,
    "B3 from random weights": B3 | {"augment": "symmetries", "aug_cutoff": 5},
    "B3 from random weights, no augmentation": B3 | PLAIN,
}
"""Options of each way to train: heads at the size at which their backbone was trained, networks that learn whole at that of the
study, so that a run takes minutes on two cores; augmentation ends after two thirds of the epochs."""

ATTEMPTS: dict[str, dict[str, Any]] = {
    "lite0 all, rate 3e-3, balanced": LITE0 | AUGMENTED | {
        "trainable": "all", "epochs": 8, "aug_cutoff": 6,
        "learning_rate": 3e-3, "layer_decay": 0.75, "class_weights": "balanced",
    },
    "lite0 all, gradients not clipped": LITE0 | AUGMENTED | {"trainable": "all", "clip_norm": 0.0},
    "lite0 all, 112 px": LITE0 | AUGMENTED | {"trainable": "all", "image_size": 112},
    "lite0 all, 224 px": LITE0 | AUGMENTED | {"trainable": "all", "image_size": 224},
    "lite0 head, 320 px": HEAD | {"augment": "none", "image_size": 320},
    "lite0 head, 448 px, clusters": HEAD | {"augment": "none", "image_size": 448, "groups": "auto"},
}  # fmt: skip
"""Ways that were tried on one set or another to reach more there; they run where they are named."""


@dataclass(frozen=True)
class Study:
    """A set and how it is asked.

    Attributes:
        name: In tables.
        options: Of the call: `data`, perhaps `test_data`, `folds`; size and epochs of networks that learn whole.
    """

    name: str
    options: dict[str, Any]


def list_studies(data: Path) -> list[Study]:
    """Return the studies, on the sets in a folder."""
    crc5, glas, breakhis = (data / name for name in ("crc5", "glas_tiles", "breakhis_patients"))
    small = {"folds": 3, "image_size": 64, "epochs": 6}
    return [
        Study("718", {"data": f"{data}/pathmnist_test718_28.npz#test", "folds": 5, "image_size": 64, "epochs": 6}),
        Study("crc5", {"data": str(crc5 / "train"), "test_data": str(crc5 / "test"), "image_size": 96, "epochs": 6}),
        Study("GlaS by patient", {"data": str(glas), "groups": r"re:(p\d+)_", **small}),
        Study("GlaS by tile", {"data": str(glas), **small}),
        Study("BreakHis by patient", {"data": str(breakhis), "groups": "re:/([^/_]+)_", **small}),
    ]


def run(study: Study, way: str, seed: int) -> dict[str, Any]:
    """Learn once and return the figures that count, with the seconds that it took, and on what."""
    started = time.perf_counter()
    options = study.options | (WAYS | ATTEMPTS)[way] | {"seed": seed, "register": False}
    if "folds" in options:
        found = histo_mlflow.cv(**options).oof
    else:
        test = histo_mlflow.train(**options).test
        assert test is not None
        found = test
    seconds, machine = time.perf_counter() - started, describe_machine("cpu")
    processor = {name: machine[name] for name in ("cpu", "has_avx512_bf16")}
    return {name: found.overall[name].value for name in FIGURES} | {"seconds": seconds, **processor}


def main() -> None:
    """Run what is asked for and is not there yet, and print medians and spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("HISTO_REAL_DATA", ".")), help="the folder with the sets"
    )
    parser.add_argument("--only", default="", help="studies whose name holds this")
    parser.add_argument("--ways", default="", help="a way to train, or those whose name begins with this")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, with the seeds 0, 1, ...")
    parser.add_argument("--output", type=Path, default=RESULTS / "tissue.json", help="the JSON file")
    parser.add_argument("--figure", type=Path, help="a picture of all runs in the file; nothing is run")
    options = parser.parse_args()
    data, output = options.data.resolve(), options.output.resolve()
    kept: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(output.read_text())["runs"] if output.exists() else {}
    if options.figure:
        if not kept:
            parser.error(f"{output} has no runs to draw")
        draw(kept, options.figure)
        return
    with tempfile.TemporaryDirectory(prefix="histo-tissue-") as folder:
        studies = [study for study in list_studies(data) if options.only in study.name]
        os.chdir(folder)  # the store of these runs
        known = WAYS | ATTEMPTS
        for way in [options.ways] if options.ways in known else [way for way in WAYS if way.startswith(options.ways)]:
            for study in studies:
                runs = kept.setdefault(study.name, {}).setdefault(way, [])
                for seed in range(len(runs), options.seeds):
                    runs.append(run(study, way, seed))
                    say(f"{study.name}, {way}, seed {seed}: {runs[-1]}")
                    write_results(output, {"runs": kept})
    say(format_runs(kept))


def draw(kept: dict[str, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    """Draw balanced accuracies: a panel for each set, a row for each way, a dot for each seed, a line at the median."""
    known = dict.fromkeys((*WAYS, *ATTEMPTS, *chain.from_iterable(kept.values())))
    ways = [way for way in known if any(found.get(way) for found in kept.values())]
    figure, panels = plt.subplots(
        1, len(kept), figsize=(2.6 * len(kept), 1.2 + 0.3 * len(ways)), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, (name, found) in zip(panels[0], kept.items(), strict=True):
        for row, way in enumerate(ways):
            values = [each["balanced_accuracy"] for each in found.get(way, ())]
            axes.scatter(values, [row] * len(values), s=26, color="#2c6fbb", alpha=0.6, linewidths=0)
            if values:
                axes.vlines(statistics.median(values), row - 0.35, row + 0.35, color="#1b2a3a", linewidth=1.8)
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_axisbelow(True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_yticks(range(len(ways)), ways)
    panels[0, 0].invert_yaxis()
    figure.supxlabel("balanced accuracy: each seed, and the median", fontsize=10)
    figure.savefig(path, dpi=110)


def format_runs(kept: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Return a table: median and range over the seeds."""
    rows = []
    for study, ways in kept.items():
        for way, runs in ways.items():
            cells = []
            for name in (*FIGURES, "seconds"):
                values = [each[name] for each in runs]
                digits = 0 if name == "seconds" else 3
                cells.append(
                    f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
                    if values
                    else ""
                )
            rows.append([study, way, str(len(runs)), *cells])
    return format_table(["set", "way to train", "seeds", *FIGURES, "seconds"], rows)


if __name__ == "__main__":
    main()
