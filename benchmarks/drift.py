"""How often drift is seen where there is some, and where there is none: `python benchmarks/drift.py --data FOLDER`.

Real tissue (HISTO_REAL_DATA), features of lite0 with ImageNet weights at 224 px, heads by logistic regression. Of each own set
some tiles or whole patients are kept away from the model; batches of them must raise no alarm, batches of other sets should.
Features are computed once and kept in a folder, which takes ten minutes; the rest takes some.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, describe_machine, write_results
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.linear_model import LogisticRegression

from histo_mlflow.console import format_table, say
from histo_mlflow.evaluation.drift import Drift, compare
from histo_mlflow.learning.augmentation import StainJitter
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer
from histo_mlflow.models.features import FeatureNetwork
from histo_mlflow.models.training_summary import HeldOut, Seen, Space, Tally, TrainingSummary, find_space, summarise
from histo_mlflow.models.weights import make_network, read_initial_weights
from histo_mlflow.tiles.perturbations import blur, brightness, hue, jpeg
from histo_mlflow.tiles.unlabelled import open_images

_SETS = {
    "crc5_train": "crc5/train", "crc5_test": "crc5/test", "organs": "unlabelled_other_organs", "glas": "glas_tiles",
    "breakhis": "breakhis_patients",
}  # fmt: skip
_SIZES = (20, 50, 200, 1000)
_LABORATORIES = 3
_CHANGES: Mapping[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "hue10": lambda tile: hue(tile, 10),
    "blur1": lambda tile: blur(tile, 1.0),
    "bright1.2": lambda tile: brightness(tile, 1.2),
    "jpeg40": lambda tile: jpeg(tile, 40),
}

Features = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OwnSet:
    """Features of a set that a model learns, with labels, and patients if they are known."""

    features: Features
    labels: NDArray[np.int64]
    patients: NDArray[np.str_] | None

    @property
    def n_classes(self) -> int:
        """How many there are."""
        return int(self.labels.max()) + 1

    @property
    def units(self) -> NDArray[Any]:
        """What is kept away or known as a whole."""
        return np.arange(len(self.labels)) if self.patients is None else self.patients


class FoldModel:
    """A head and the space of the tiles that it was fitted on."""

    def __init__(self, own: OwnSet, rows: NDArray[np.int64]) -> None:
        features = own.features[rows]
        self._mean, self._sd = features.mean(axis=0), features.std(axis=0) + 1e-6
        self._head = LogisticRegression(C=0.1, max_iter=300).fit((features - self._mean) / self._sd, own.labels[rows])
        self.space: Space = find_space(features)

    def see(self, features: Features) -> Seen:
        """Return what the model makes of tiles."""
        logits = self._head.decision_function((features - self._mean) / self._sd)
        if logits.ndim == 1:
            logits = np.stack([-logits / 2, logits / 2], axis=1)
        return Seen(logits.astype(np.float32), features)

    def hold_out(self, own: OwnSet, rows: NDArray[np.int64], *, with_patients: bool) -> HeldOut:
        """Return tiles that it has not learnt from, scored."""
        seen = self.see(own.features[rows])
        patients = own.patients[rows] if with_patients and own.patients is not None else None
        return HeldOut(self.space.scores_of(seen), seen.called, patients)


def main() -> None:
    """Measure, keep the figures, and show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HISTO_REAL_DATA", ".")))
    parser.add_argument("--features", type=Path, default=Path("drift-features"), help="folder that keeps features")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--draws", type=int, default=20)
    asked = parser.parse_args()
    _compute_features(asked.data, asked.features)
    rows, candidates = [], []
    for name in ("crc5", "breakhis", "glas"):
        own, others = _open(asked.features, name)
        rows += _alarm_rates(name, own, others, asked.seeds, asked.draws)
        if own.patients is not None:
            candidates += _compare_candidates(name, own, {key: each for key, (each,) in others.items()})
    write_results(
        RESULTS / "drift.json",
        {"machine": describe_machine("cpu"), "seeds": asked.seeds, "alarms": rows, "candidates": candidates},
    )
    say(
        format_table(["model", "batch", "tiles", "patients", "alarms", "batches"], [[str(v) for v in r.values()] for r in rows])
    )
    say(format_table(["own set", "statistic", "other set", "farther"], [[str(v) for v in row.values()] for row in candidates]))


def _compute_features(data: Path, folder: Path) -> None:
    """Compute and keep the features of each set that the folder lacks."""
    folder.mkdir(exist_ok=True)
    initial = read_initial_weights("imagenet", is_synthetic=False, backbone="lite0")
    network = FeatureNetwork(make_network(initial, classes=("a", "b"), tile_size_px=224)[0])
    compute = Compute(torch.device("cpu"), is_bf16=False)

    def keep(name: str, blocks: Sequence[NDArray[Any]], names: Sequence[str]) -> None:
        features = np.concatenate([infer(network, block, compute=compute, description=name) for block in blocks])
        np.savez(folder / f"{name}.npz", f=features, names=np.array(names))

    for name, place in _SETS.items():
        if not (folder / f"{name}.npz").exists():
            source = open_images(str(data / place))
            keep(name, [block.images for blocks in source.blocks([]) for block in blocks], source.names)
    source = open_images(str(data / "crc5/test"))
    tiles = np.concatenate([block.images for blocks in source.blocks([]) for block in blocks])[::2]
    for sigma in (0.05, 0.1, 0.2):
        jitter, generator = StainJitter(sigma), torch.Generator().manual_seed(0)
        jitter.draw(1, generator)
        for laboratory in range(_LABORATORIES):
            drawn = jitter.draw(1, generator).expand(len(tiles), -1, -1)  # all tiles alike: another laboratory
            if not (folder / f"crc5_stain{sigma}_{laboratory}.npz").exists():
                keep(
                    f"crc5_stain{sigma}_{laboratory}", [jitter.apply(torch.from_numpy(tiles), drawn).numpy()], source.names[::2]
                )
    for name, change in _CHANGES.items():
        if not (folder / f"crc5_{name}.npz").exists():
            keep(f"crc5_{name}", [np.stack([change(tile) for tile in tiles])], source.names[::2])


def _open(folder: Path, own: str) -> tuple[OwnSet, dict[str, list[Features]]]:
    """Return an own set, and other sets by name."""
    kept = {file.stem: np.load(file) for file in sorted(folder.glob("*.npz"))}
    features = {name: each["f"] for name, each in kept.items()}
    base = "crc5_train" if own == "crc5" else own
    names = [Path(str(name)) for name in kept[base]["names"]]
    labels = np.unique([name.parent.name for name in names], return_inverse=True)[1]
    patients = None if own == "crc5" else np.array([name.name.split("_")[0] for name in names])
    others = {name: [features[name]] for name in ("organs", "glas", "breakhis", "crc5_train") if name not in {own, base}}
    if own == "crc5":
        others["the set's own test part"] = [features["crc5_test"]]
        for sigma in (0.05, 0.1, 0.2):
            others[f"restained {sigma}"] = [features[f"crc5_stain{sigma}_{k}"] for k in range(_LABORATORIES)]
        others |= {name: [features[f"crc5_{name}"]] for name in _CHANGES}
    return OwnSet(features[base], labels, patients), others


def _alarm_rates(name: str, own: OwnSet, others: Mapping[str, list[Features]], seeds: int, draws: int) -> list[dict[str, Any]]:
    alarms: dict[tuple[str, int, bool], list[bool]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        units = rng.permutation(np.unique(own.units))
        n_away = len(units) * 2 // 7 if own.patients is None else len(units) // 4
        away, known = units[:n_away], units[n_away:]
        new = np.flatnonzero(np.isin(own.units, away))
        batches: dict[str, list[Features]] = {"own tiles, new": [own.features[new]]}
        if own.patients is None:
            batches["own tiles, new, of one class"] = [own.features[new][own.labels[new] == k] for k in range(own.n_classes)]
        else:
            batches["own, one new patient"] = [own.features[own.patients == patient] for patient in away]
        for with_patients in (False,) if own.patients is None else (True, False):
            model, summary = _learn(own, known, with_patients=with_patients)
            asked = batches if not with_patients and own.patients is not None else {**batches, **others}
            for (batch, n_tiles), found in _draw(model, summary, asked, draws, rng).items():
                alarms.setdefault((batch, n_tiles, with_patients), []).extend(each.is_alarm for each in found)
    return [
        {
            "model": name,
            "batch": batch,
            "n_tiles": n,
            "patients_known": known,
            "alarms": round(float(np.mean(found)), 3),
            "n": len(found),
        }
        for (batch, n, known), found in alarms.items()
    ]


def _learn(own: OwnSet, known: NDArray[Any], *, with_patients: bool) -> tuple[FoldModel, TrainingSummary]:
    """Return the model of the first of five folds, and its summary: of all folds where patients are known, else of its own."""
    models, held_out = [], []
    for fold in range(5 if own.patients is not None and with_patients else 1):
        away = np.isin(own.units, known[fold::5])
        models.append(FoldModel(own, np.flatnonzero(np.isin(own.units, known) & ~away)))
        held_out.append(models[-1].hold_out(own, np.flatnonzero(away), with_patients=with_patients))
    return models[0], summarise(models[0].space, held_out, own.n_classes)


def _draw(
    model: FoldModel, summary: TrainingSummary, batches: Mapping[str, list[Features]], draws: int, rng: np.random.Generator
) -> dict[tuple[str, int], list[Drift]]:
    """Return what is said of batches of each size, drawn from pools; one patient's tiles may be fewer than asked for."""
    found: dict[tuple[str, int], list[Drift]] = {}
    for name, pools in batches.items():
        scored = [(model.space.scores_of(seen), seen.called) for seen in map(model.see, pools)]
        for n_tiles in _SIZES:
            fitting = [each for each in scored if len(each[1]) >= n_tiles / 2]
            for _ in range(draws if fitting else 0):
                scores, called = fitting[rng.integers(len(fitting))]
                rows = rng.permutation(len(called))[:n_tiles]
                tally = Tally.of(scores[:, rows], called[rows], summary.n_classes)
                found.setdefault((name, n_tiles), []).append(compare(summary, tally))
    return found


def _compare_candidates(name: str, own: OwnSet, others: Mapping[str, Features]) -> list[dict[str, Any]]:
    """Return how often 40 tiles of another set lie farther off than the tiles of a patient who was kept away, by statistic."""
    assert own.patients is not None
    values: dict[tuple[str, str], list[float]] = {}
    rng, names = np.random.default_rng(0), np.unique(own.patients)
    for fold in range(5):
        away = names[fold::5]
        training = np.flatnonzero(~np.isin(own.patients, away))
        statistics = _statistics(own, training)
        pools = {"": [own.features[own.patients == patient] for patient in away]}
        pools |= {key: [each[rng.permutation(len(each))[:40]] for _ in range(6)] for key, each in others.items()}
        for key, batches in pools.items():
            for statistic, value in statistics.items():
                values.setdefault((statistic, key), []).extend(value(batch) for batch in batches)
    return [
        {"own": name, "statistic": statistic, "other": key,
         "farther": round(float(np.mean(np.array(found)[:, None] > np.array(values[statistic, ""]))), 2)}
        for (statistic, key), found in values.items() if key
    ]  # fmt: skip


def _statistics(own: OwnSet, rows: NDArray[np.int64]) -> dict[str, Callable[[Features], float]]:
    """Return distances of a batch from training tiles, each after the mix of their classes that comes nearest to it."""
    model, labels = FoldModel(own, rows), own.labels[rows]
    space = model.space
    within = own.features[rows] - np.stack([own.features[rows][labels == k].mean(axis=0) for k in range(own.n_classes)])[labels]
    _, sizes, axes = np.linalg.svd(within, full_matrices=False)
    whitening = axes[:32].T / (sizes[:32] / np.sqrt(len(rows)))
    whitened = (own.features[rows] - space.centre) @ whitening
    sample = whitened[np.random.default_rng(0).permutation(len(whitened))[:400]]
    squared = ((sample[:, None] - sample) ** 2).sum(axis=-1)
    waves = np.random.default_rng(0).normal(size=(32, 512)) / np.sqrt(np.median(squared[squared > 0]))
    embed = {"mean shift": lambda x: x, "maximum mean discrepancy": lambda x: np.hstack([np.cos(x @ waves), np.sin(x @ waves)])}
    means = {key: np.stack([of(whitened)[labels == k].mean(axis=0) for k in range(own.n_classes)]) for key, of in embed.items()}
    centres = np.stack([whitened[labels == k].mean(axis=0) for k in range(own.n_classes)])

    def white(batch: Features) -> NDArray[np.floating[Any]]:
        return (batch - space.centre) @ whitening

    def of_mean(key: str) -> Callable[[Features], float]:
        return lambda batch: _off_mix(embed[key](white(batch)).mean(axis=0), means[key])

    def mahalanobis(batch: Features) -> float:
        return float(np.log(((white(batch)[:, None] - centres) ** 2).sum(axis=-1).min(axis=1)).mean())

    return {
        "strangeness": lambda batch: float(space.scores_of(model.see(batch))[0].mean()),
        "confidence, lower": lambda batch: -float(space.scores_of(model.see(batch))[1].mean()),
        "Mahalanobis distance": mahalanobis,
        **{key: of_mean(key) for key in embed},
    }


def _off_mix(mean: NDArray[np.floating[Any]], of_classes: NDArray[np.floating[Any]]) -> float:
    """Return the squared distance of a mean from the nearest mix of those of the classes."""
    heavy = 1e3  # the shares sum to 1
    shares, _ = nnls(np.vstack([of_classes.T, np.full(len(of_classes), heavy)]), np.append(mean, heavy))
    return float(((mean - shares @ of_classes) ** 2).sum())


if __name__ == "__main__":
    main()
