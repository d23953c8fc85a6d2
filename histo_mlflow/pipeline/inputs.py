"""Opens what a request names, before any run begins: tiles, test tiles, first weights, models."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from histo_mlflow.console import say, warn
from histo_mlflow.evaluation.costs import read_costs
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.models.checkpoint import CheckpointFacts, load_weights
from histo_mlflow.models.classifier import TileClassifier, fold_batch_norms, with_temperature
from histo_mlflow.models.weights import InitialWeights, adopt_weights, make_network, read_initial_weights
from histo_mlflow.options import stated
from histo_mlflow.pipeline.options import LearningOptions
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import Part, TileSet, with_class_order
from histo_mlflow.tracking.acceptance import check_classes_accepted
from histo_mlflow.tracking.model_flavor import ModelFacts, load_saved
from histo_mlflow.tracking.registry import located_model, names_a_model, version_of
from histo_mlflow.tracking.store import Store, read_store


@dataclass(frozen=True, eq=False)
class LearningInputs:
    """All that training reads.

    Attributes:
        tiles: To learn from and to validate on.
        test: Watched, never selected on; or None.
        initial: First weights.
        costs: ``(n_classes, n_classes)``, what each confusion costs.
    """

    tiles: TileSet
    test: TileSet | None
    initial: InitialWeights
    costs: Floats

    @property
    def watched(self) -> Part | None:
        """The test tiles, or None."""
        return None if self.test is None else self.test.part("test")

    @property
    def by_split(self) -> dict[str, TileSet]:
        """The set that each scored split is a part of, by its name."""
        return {"val": self.tiles, "oof": self.tiles} | ({} if self.test is None else {"test": self.test})


def open_learning_inputs(options: LearningOptions) -> LearningInputs:
    """Return the opened inputs, and say what they are; raises `RequestError` for whatever is wrong with them."""
    data, network = options.data, options.recipe.network
    opened = open_tiles(data.data, image_size=network.image_size)
    tiles = announce(replace(opened, microns_per_pixel=data.microns_per_pixel))
    check_classes_accepted(tiles.classes, where=tiles.source)
    test = None
    if source := stated(data.test_data):
        test = announce(with_class_order(open_tiles(source, image_size=network.image_size), tiles.classes))
        if test.fingerprint == tiles.fingerprint:
            warn("test_data holds the same tiles as data: its figures will say nothing about new tiles")
    costs = read_costs(options.costs.costs, tiles.classes)
    initial = _open_weights(network.weights, is_synthetic=tiles.is_synthetic)
    say(f"weights: {initial.origin}")
    return LearningInputs(tiles, test, initial, costs)


def _open_weights(weights: str, *, is_synthetic: bool) -> InitialWeights:
    if not names_a_model(weights) and not (Path(weights) / "MLmodel").exists():
        return read_initial_weights(weights, is_synthetic=is_synthetic)
    with located_model(read_store(), weights, option="weights") as located:
        if located.is_checkpoint:
            return replace(read_initial_weights(str(located.path), is_synthetic=is_synthetic), origin=weights)
        network, facts = load_saved(located.path)
    return adopt_weights(network, facts.classes, origin=weights)


def announce(tiles: TileSet) -> TileSet:
    """Say what the tiles are, aloud if they are no tissue, and return them."""
    counts = " ".join(f"{name} {count}" for name, count in tiles.class_counts().items())
    say(f"tiles: {tiles.source}: {len(tiles)} of {tiles.tile_size_px} px ({counts})")
    for note in tiles.passed_over:
        warn(f"passed over: {note}")
    if tiles.is_synthetic:
        warn("these are SYNTHETIC demo tiles, not tissue; no figure from them says anything about tissue")
    return tiles


def open_scored_tiles(source: str, model: "LoadedModel") -> TileSet:
    """Return the labelled tiles on which `model` is scored, with its classes in its order, and say what they are."""
    return with_class_order(announce(open_tiles(source, image_size=model.tile_size_px)), model.classes)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network that is ready to infer, with what must be known of it.

    Attributes:
        network: From uint8 tiles to logits, in evaluation mode.
        classes: Class names in the order of the logits.
        address: Under which it was asked for.
        selected: How it was selected, in words.
        tile_size_px: Edge length to which it resizes tiles.
        data_fingerprint: Of the tiles that it learnt from.
        is_synthetic: Whether these were the demo's.
        run_id: Of the run that it comes from, or None.
        facts: What travels with a logged model; None for a checkpoint.
    """

    network: torch.nn.Module
    classes: tuple[str, ...]
    address: str
    selected: str
    tile_size_px: int
    data_fingerprint: str
    is_synthetic: bool
    run_id: str | None
    facts: ModelFacts | None = None

    @cached_property
    def folded(self) -> torch.nn.Module:
        """The same network, batch norms folded once, for whoever calls `infer` often."""
        return fold_batch_norms(self.network)

    def unpacked(self) -> TileClassifier:
        """Return the same network as a module of ours, whose layers can be looked into, without a temperature."""
        if isinstance(self.network, TileClassifier):
            return self.network
        initial = adopt_weights(self.network, self.classes, origin=self.address)
        return make_network(initial, classes=self.classes, tile_size_px=self.tile_size_px)[0]

    def calibrated(self) -> TileClassifier:
        """Return the same network as a module of ours, with the temperature that the model divides its logits by."""
        is_calibrated = self.facts is not None and self.facts.is_calibrated
        temperature = self.facts.temperature if self.facts is not None and is_calibrated else None
        return self.unpacked().eval() if temperature is None else with_temperature(self.unpacked(), temperature).eval()

    def describe(self) -> str:
        """Return the address, with a word on a model that has never seen tissue."""
        return f"{self.address} (learnt from synthetic demo tiles, not tissue)" if self.is_synthetic else self.address


def load_model(store: Store, address: str, device: torch.device) -> LoadedModel:
    """Return the model that a URI, a run id or a path names, on `device`."""
    if (version := version_of(store, address)) is not None:
        say(f"model: {address}, version {version}")
    with located_model(store, address) as located:
        if located.is_checkpoint:
            network, checkpoint = load_weights(located.path)
            selected = f"epoch {checkpoint.epoch} as asked for; validation loss {checkpoint.val_loss:.4f}"
            return _announced(
                LoadedModel(
                    network.to(device), address=address, selected=selected, run_id=located.run_id, **_common(checkpoint)
                )
            )
        exported, facts = load_saved(located.path)
        return _announced(
            LoadedModel(
                exported.to(device), address=address, selected=facts.selected, run_id=located.run_id, facts=facts,
                **_common(facts),
            )
        )  # fmt: skip


def _common(facts: CheckpointFacts | ModelFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in ("classes", "tile_size_px", "data_fingerprint", "is_synthetic")}


def _announced(model: LoadedModel) -> LoadedModel:
    if model.is_synthetic:
        warn(f"{model.address} has learnt from SYNTHETIC demo tiles: what it says of tissue means nothing")
    return model
