"""Opens what a request names, before any run begins: tiles, test tiles, first weights, models."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from histo_mlflow.console import say, warn
from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.costs import read_costs
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.learning.options import suit_to_trained_weights
from histo_mlflow.models.checkpoint import load_weights
from histo_mlflow.models.model import Model
from histo_mlflow.models.options import NetworkOptions
from histo_mlflow.models.weights import InitialWeights, adopt_weights, find_missing, read_initial_weights
from histo_mlflow.options import flatten, stated
from histo_mlflow.pipeline.options import LearningOptions
from histo_mlflow.tiles.copies import find_copies
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import ReadingOptions
from histo_mlflow.tiles.tile_set import Part, TileSet, with_class_order
from histo_mlflow.tracking.acceptance import check_classes_accepted
from histo_mlflow.tracking.model_flavor import load_saved
from histo_mlflow.tracking.registry import located_model, names_a_model, version_of
from histo_mlflow.tracking.store import Store, read_store

OptionsT = TypeVar("OptionsT", bound=LearningOptions)


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
    def test_fingerprint(self) -> str:
        """SHA-256 of the test set, or ``none``."""
        return self.test.fingerprint if self.test else "none"

    @property
    def by_split(self) -> dict[str, TileSet]:
        """The set that each scored split is a part of, by its name."""
        return {"val": self.tiles, "oof": self.tiles} | ({} if self.test is None else {"test": self.test})


def open_learning_inputs(options: LearningOptions) -> LearningInputs:
    """Return the opened inputs, and say what they are; raises `RequestError` for whatever is wrong with them."""
    data, network = options.data, options.recipe.network
    opened = announce(open_tiles(data.data, image_size=network.image_size, reading=data.reading))
    tiles = replace(opened, copies=find_copies(opened))
    check_classes_accepted(tiles.classes, where=tiles.source)
    test = None
    if source := stated(data.test_data):
        opened = open_tiles(source, image_size=network.image_size, reading=data.test_reading)
        test = announce(with_class_order(opened, tiles.classes))
        if test.fingerprint == tiles.fingerprint:
            warn("test_data holds the same tiles as data: its figures will say nothing about new tiles")
    costs = read_costs(options.costs.costs, tiles.classes)
    return LearningInputs(tiles, test, open_weights(network, is_synthetic=tiles.is_synthetic), costs)


def with_backbone(inputs: LearningInputs, network: NetworkOptions) -> LearningInputs:
    """Return the inputs with the first weights of another network; raises `RequestError` if these can't be had."""
    return replace(inputs, initial=open_weights(network, is_synthetic=inputs.tiles.is_synthetic))


def open_weights(asked: NetworkOptions, *, is_synthetic: bool) -> InitialWeights:
    """Return the first weights that are asked for, and say where they come from.

    Raises as `read_initial_weights`, or for a missing model.
    """
    initial = _find_weights(asked, is_synthetic=is_synthetic)
    say(f"weights: {initial.origin}")
    return initial


def _find_weights(asked: NetworkOptions, *, is_synthetic: bool) -> InitialWeights:
    weights, backbone = asked.weights, asked.backbone
    if not names_a_model(weights) and not (Path(weights) / "MLmodel").exists():
        if (missing := find_missing(weights, is_synthetic=is_synthetic, backbone=backbone)) is not None:
            say(f"fetching {missing.url} (licence: {missing.licence.words}) ...")
        return read_initial_weights(weights, is_synthetic=is_synthetic, backbone=backbone)
    with located_model(read_store(), weights, option="weights") as located:
        if located.is_checkpoint:
            read = read_initial_weights(str(located.path), is_synthetic=is_synthetic, backbone=backbone)
            return replace(read, origin=weights)
        network, facts = load_saved(located.path)
    if facts.backbone != backbone:
        raise OptionError(f"weights={weights} are those of a {facts.backbone}; give backbone={facts.backbone} too")
    return adopt_weights(network, facts, origin=weights)


def suited(options: OptionsT, initial: InitialWeights) -> OptionsT:
    """Return the options with the rates that suit these first weights, where none are given, and say which."""
    if not initial.are_trained:
        return options
    recipe = suit_to_trained_weights(options.recipe, options.given)
    before, after = flatten(options.recipe), flatten(recipe)
    if changed := [f"{name}={after[name]:g}" for name in after if after[name] != before[name]]:
        say(f"for trained weights: {', '.join(changed)}")
    return replace(options, recipe=recipe)


def announce(tiles: TileSet) -> TileSet:
    """Say what the tiles are, with a warning if they are not tissue, and return them."""
    counts = " ".join(f"{name} {count}" for name, count in tiles.class_counts().items())
    say(f"tiles: {tiles.source}: {len(tiles)} of {tiles.tile_size_px} px ({counts})")
    for note in tiles.notes:
        say(f"  {note}")
    for note in tiles.passed_over:
        warn(f"passed over: {note}")
    if tiles.is_synthetic:
        warn("these are SYNTHETIC demo tiles, not tissue; no figure from them says anything about tissue")
    return tiles


def open_scored_tiles(source: str, reading: ReadingOptions, model: Model) -> TileSet:
    """Return the labelled tiles on which `model` is scored, with its classes in its order, and say what they are."""
    tiles = announce(open_tiles(source, image_size=model.facts.tile_size_px, reading=reading))
    if tiles.classes != model.classes and set(tiles.classes) == set(model.classes):
        say(f"  {model.address} has the classes in the order {' '.join(model.classes)}; they are taken by name")
    return with_class_order(tiles, model.classes)


def load_model(store: Store, address: str, device: torch.device) -> Model:
    """Return the model that a URI, a run id or a path names, on `device`."""
    if (version := version_of(store, address)) is not None:
        say(f"model: {address}, version {version}")
    with located_model(store, address) as located:
        network, facts = load_weights(located.path) if located.is_checkpoint else load_saved(located.path)
        model = Model(network.to(device), facts, address, located.run_id)
    if facts.is_synthetic:
        warn(f"{address} has learnt from SYNTHETIC demo tiles: what it says of tissue means nothing")
    return model
