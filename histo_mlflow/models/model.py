"""A network that is ready to infer, with its facts; knows nothing of where it is kept."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

from torch import nn

from histo_mlflow.models.classifier import TileClassifier, fold_batch_norms, with_temperature
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.features import add_weights
from histo_mlflow.models.revealed import reveal
from histo_mlflow.models.training_summary import TrainingSummary
from histo_mlflow.models.weights import adopt_weights, make_network


@dataclass(frozen=True, eq=False)
class Model:
    """A network and its facts.

    Attributes:
        module: From uint8 tiles to logits, in evaluation mode.
        facts: What must be known of it.
        address: Under which it was asked for.
        run_id: Of the run that it comes from, or None.
        summary: What it keeps of its training, or None of a checkpoint, and of versions that were made before it was kept.
    """

    module: nn.Module
    facts: ModelFacts
    address: str
    run_id: str | None = None
    summary: TrainingSummary | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.facts.classes

    @cached_property
    def folded(self) -> nn.Module:
        """The same network, batch norms folded once, for whoever calls `infer` often."""
        return fold_batch_norms(self.module)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of its weights and its facts: another version has another, the same version never."""
        digest = hashlib.sha256(json.dumps(asdict(self.facts), sort_keys=True).encode())
        add_weights(digest, self.module.state_dict())
        return digest.hexdigest()

    @cached_property
    def revealed(self) -> nn.Module | None:
        """The same with the features that its head sees beside the logits (`reveal`), or None where they can't be had."""
        return reveal(self.folded)

    def unpacked(self) -> TileClassifier:
        """Return the same network as a `TileClassifier`, whose layers can be inspected, without a temperature."""
        if isinstance(self.module, TileClassifier):
            return self.module
        initial = adopt_weights(self.module, self.facts, origin=self.address)
        return make_network(initial, classes=self.classes, tile_size_px=self.facts.tile_size_px)[0]

    def calibrated(self) -> TileClassifier:
        """Return the same network as a `TileClassifier`, with the temperature that the model divides its logits by."""
        return with_temperature(self.unpacked(), self.facts.divisor).eval()

    def describe(self) -> str:
        """Return the address, with a word on a model that has never seen tissue."""
        return f"{self.address} (learnt from synthetic demo tiles, not tissue)" if self.facts.is_synthetic else self.address
