"""Opens what a request names, before any run begins: tiles, test tiles, first weights, models."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from histo_mlflow.base.plain_values import read_yaml_mapping
from histo_mlflow.console import say, warn
from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.evaluation.costs import read_costs
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.learning.options import HEAD, suit_to_features, suit_to_trained_weights
from histo_mlflow.models.checkpoint import load_weights
from histo_mlflow.models.model import Model
from histo_mlflow.models.options import OPENVINO_INT8, NetworkOptions, n_features_of
from histo_mlflow.models.weights import InitialWeights, adopt_weights, find_missing, read_initial_weights
from histo_mlflow.options import build, flatten, option_fields, stated
from histo_mlflow.pipeline.kept_split import kept_rows
from histo_mlflow.pipeline.options import LearningOptions
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import ReadingOptions
from histo_mlflow.tiles.tile_set import Form, Part, TileSet, with_class_order
from histo_mlflow.tracking.acceptance import check_classes_accepted
from histo_mlflow.tracking.found_runs import find_run
from histo_mlflow.tracking.model_flavor import load_saved, load_summary
from histo_mlflow.tracking.named_runs import SHORT_CHARACTERS
from histo_mlflow.tracking.registry import REGISTERED_TAG, located_model, names_a_model, version_of
from histo_mlflow.tracking.short_names import is_of_the_store
from histo_mlflow.tracking.store import Store, read_store

OptionsT = TypeVar("OptionsT", bound=LearningOptions)

_MUCH = 3  # times smaller: of 64 px an EfficientNet makes a last map of 2 x 2; docs/results.md has what that loses


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


def open_learning_inputs(options: OptionsT) -> tuple[LearningInputs, OptionsT]:
    """Return the opened inputs, and the options as they suit them, and say what they are.

    Raises `RequestError` for whatever is wrong with them.
    """
    # Half a second of faiss and OpenCV, which nothing but training needs.
    from histo_mlflow.pipeline.precheck import check_tiles

    data, asked = options.data, options.recipe.network
    opened = announce(open_tiles(data.data, image_size=asked.image_size, reading=data.reading))
    if opened.encoder:
        options = replace(options, recipe=suit_to_features(options.recipe, options.given, n_features=opened.form.n_features))
    network, fit = options.recipe.network, options.recipe.fit
    if fit.head_cost and fit.trainable != HEAD:
        raise OptionError(f"head_cost={fit.head_cost:g}: has no meaning with trainable={fit.trainable}; give trainable={HEAD}")
    check_classes_accepted(opened.classes, where=opened.source)
    test = None
    if source := stated(data.test_data):
        watched = open_tiles(source, image_size=network.image_size, reading=data.test_reading)
        test = announce(with_class_order(watched, opened.classes))
        if test.form != opened.form:
            raise RequestError(f"test_data={source} holds {test.form}, data={data.data} {opened.form}; give both in one form")
    # What has begun goes on: it was asked when it began, or began before anybody asked.
    allow_leak = stated(data.allow_leak) or ("the run began so" if options.keeping.is_resumed else None)
    tiles = check_tiles(opened, test, allow_leak=allow_leak)
    for note in tiles.notes[len(opened.notes) :]:
        say(f"  {note}")
    costs = read_costs(options.costs.costs, tiles.classes)
    inputs = LearningInputs(tiles, test, open_weights(network, is_synthetic=tiles.is_synthetic), costs)
    if not tiles.encoder and (hint := hint_of_size(inputs.initial, network.image_size or tiles.tile_size_px)):
        say(f"  {hint}")
    return inputs, suited(options, inputs.initial)


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


def hint_of_size(initial: InitialWeights, size_px: int) -> str:
    """Return what to try where tiles of `size_px` are much smaller than those that trained weights were made for, or ""."""
    if not initial.are_trained or _MUCH * size_px >= initial.size_px:
        return ""
    better = f"image_size={initial.size_px // 2} takes longer and is often better (docs/backbones.md)"
    return f"they were made for {initial.size_px} px and get {size_px}: {better}"


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
    each = str(tiles.form) if tiles.encoder else f"{tiles.tile_size_px} px"
    say(f"tiles: {tiles.source}: {len(tiles)} of {each} ({counts})")
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
    check_form(tiles.form, model, where=tiles.source)
    if tiles.classes != model.classes and set(tiles.classes) == set(model.classes):
        say(f"  {model.address} has the classes in the order {' '.join(model.classes)}; they are taken by name")
    return with_class_order(tiles, model.classes)


def check_form(form: Form, model: Model, *, where: str) -> None:
    """Raise `RequestError` unless tiles come as the model takes them: as pixels, or as features of the same encoder."""
    facts = model.facts
    wanted = Form(facts.encoder, n_features_of(facts.backbone))
    if form != wanted:
        raise RequestError(f"{model.address} takes {wanted}, and {where} holds {form}; give what the model takes")


def open_calibration(store: Store, model: Model, source: str | None) -> Part:
    """Return the labelled tiles to make and judge a model in 8 bits with.

    Of a set that the model has learnt from these are the tiles that it was validated on. Without `source` they are looked for
    where training found them.

    Raises:
        OptionError: They can't be had.
    """
    if model.facts.takes_features:
        raise OptionError(f"{OPENVINO_INT8} is for models that take tiles, and {model.address} takes features; leave it out")
    run = find_run(store, model.run_id)
    config = run.read("config.yaml", read_yaml_mapping) if run and run.has_file("config.yaml") else {}
    own = str(config.get("data", ""))
    is_own = source is None
    if source is None and not own:
        raise OptionError(
            f"calibration_data is missing: {model.address} has no run here that names its validation tiles; give "
            "--calibration-data, labelled tiles that it has not learnt from"
        )
    source = source or own
    kept = {name: config[name] for name in option_fields(ReadingOptions) if name in config}
    tiles = open_scored_tiles(source, build(ReadingOptions, kept) if source == own else ReadingOptions(), model)
    if tiles.tile_size_px != model.facts.tile_size_px:
        raise OptionError(
            f"{tiles.source}: tiles of {tiles.tile_size_px} px, and {OPENVINO_INT8} takes those of the model's own size alone, "
            f"{model.facts.tile_size_px} px; store them at that size"
        )
    if tiles.fingerprint != model.facts.data_fingerprint:
        if is_own:
            raise OptionError(f"{source} holds other tiles than {model.address} has learnt from; name them: --calibration-data")
        return tiles.part("all")
    rows = kept_rows(run) if run else {}
    if "val" not in rows:
        raise OptionError(
            f"{tiles.source}: {model.address} has learnt from these very tiles, and which of them it was validated on is not "
            "known here; give labelled tiles that it has not learnt from"
        )
    return tiles.part("val", rows["val"])


def describe_model(store: Store, model: Model) -> str:
    """Return how a model was named, and which version that is or from which run it comes, if that is known."""
    if (version := version_of(store, model.address)) is not None:
        return f"{model.address}, version {version}"
    run = find_run(store, model.run_id) if is_of_the_store(model.address) else None
    if run is None:
        return model.address
    registered, short = run.tags().get(REGISTERED_TAG), run.id[:SHORT_CHARACTERS]
    facts = [registered if registered != model.address else None, f"run {short}" if run.id != model.address else None]
    return ", ".join([model.address, *(fact for fact in facts if fact)])


def load_model(store: Store, address: str, device: torch.device) -> Model:
    """Return the model that a URI, a run id or a path names, on `device`."""
    if (version := version_of(store, address)) is not None:
        say(f"model: {address}, version {version}")
    with located_model(store, address) as located:
        network, facts = load_weights(located.path) if located.is_checkpoint else load_saved(located.path)
        summary = None if located.is_checkpoint else load_summary(located.path)
        model = Model(network.to(device), facts, address, located.run_id, summary)
    if facts.is_synthetic:
        warn(f"{address} has learnt from SYNTHETIC demo tiles: what it says of tissue means nothing")
    return model
