"""What must be known of a network to use it; one type for checkpoints, logged models and model cards."""

import unicodedata
from dataclasses import dataclass, field, replace

from histo_mlflow.base.plain_values import build_plain, shorten
from histo_mlflow.models.options import DEFAULT_BACKBONE, n_features_of

_MAX_TILE_SIZE_PX = 8192


@dataclass(frozen=True)
class ModelFacts:
    """What travels with weights: in the header of a checkpoint, and as ``data/model.json`` in a logged model.

    Files that were written before a fact was kept have its default.

    Attributes (those that do not speak for themselves):
        classes: In the order of the logits.
        tile_size_px: Edge length to which the network resizes tiles; 0 where it takes features.
        data_fingerprint: SHA-256 of the tiles that it learnt from.
        is_synthetic: Whether these were the demo's.
        backbone: Its name.
        microns_per_pixel: At `tile_size_px`, or None.
        preprocessing: From tiles to what the backbone sees, in words.
        weights_origin: What it started from, in words.
        weights_origin_sha256: Of the file that held these weights, or "".
        licence: Under which these weights were published, in words, or "".
        may_be_passed_on: Whether that lets a model that has learnt from them be handed to others.
        data_source: Which tiles it learnt from, in words.
        tiles_per_class: Tiles of each class that it learnt from and was selected on, by part.
        split_unit: What was kept together when these parts were made, in words.
        epoch: Of a checkpoint.
        val_loss: Of a checkpoint, in nats.
        selected: How it was selected, in words; of a logged model.
        temperature: Fitted on the validation tiles, or None.
        is_calibrated: Whether the graph divides its logits by it.
        abstain_below: Probability below which the model abstains if asked to, chosen on validation tiles, or None.
        encoder: What has made the features that it takes, in words; "" of a model that takes tiles.
    """

    classes: tuple[str, ...]
    tile_size_px: int
    data_fingerprint: str
    is_synthetic: bool
    backbone: str = DEFAULT_BACKBONE
    microns_per_pixel: float | None = None
    preprocessing: str = "not known"
    weights_origin: str = "not known"
    weights_origin_sha256: str = ""
    licence: str = ""
    may_be_passed_on: bool = True
    data_source: str = "not known"
    tiles_per_class: dict[str, list[int]] = field(default_factory=dict)
    split_unit: str = "not known"
    epoch: int | None = None
    val_loss: float | None = None
    selected: str = ""
    temperature: float | None = None
    is_calibrated: bool = False
    abstain_below: float | None = None
    encoder: str = ""

    @property
    def takes_features(self) -> bool:
        """Whether the model takes features that an encoder has made, and not tiles."""
        return n_features_of(self.backbone) > 0

    @property
    def divisor(self) -> float:
        """What the model divides its logits by."""
        return self.temperature if self.is_calibrated and self.temperature is not None else 1.0

    def describe_selection(self) -> str:
        """Return how the weights were chosen, in words."""
        if self.epoch is None or self.val_loss is None:
            return self.selected
        return f"epoch {self.epoch} as asked for; validation loss {self.val_loss:.4f}"


def facts_from(stored: object) -> ModelFacts:
    """Return the facts that a JSON holds; raises `ValueError` unless each has its type and all of them are possible."""
    facts = build_plain(ModelFacts, stored)
    classes = tuple(unicodedata.normalize("NFC", name) for name in facts.classes)  # as tiles have them
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes={shorten(' '.join(classes))} are not all different")
    if facts.takes_features:
        if facts.tile_size_px:
            raise ValueError(f"tile_size_px={shorten(facts.tile_size_px)} of a model that takes features")
    elif not 0 < facts.tile_size_px <= _MAX_TILE_SIZE_PX:
        raise ValueError(f"tile_size_px={shorten(facts.tile_size_px)} is not a possible size")
    return replace(facts, classes=classes)
