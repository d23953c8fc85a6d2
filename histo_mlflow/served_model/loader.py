"""Loads a logged model and answers with a table; MLflow finds `_load_pyfunc` by the name in the model's MLmodel file."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from .folding import fold_graph
from .kept_backbone import find_kept
from .precision import in_full_fp32
from .requests import batches_of, feature_batches_of

FACTS_FILE = "model.json"
WEIGHTS_FILE = "model.pt2"
REFERENCE = "kept_backbone"
_FEATURES = "features"  # the source of a backbone that stands for features which were made before


def code_sha256(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of the Python files in `folder`, by which this loader knows itself."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()


# Taken once: the module outlives the folder that it was imported from, which may be a download that is gone by the next load.
_OWN_SHA256 = code_sha256(Path(__file__).parent)


class ServedModel:
    """What `mlflow.pyfunc.load_model` wraps.

    Attributes:
        network: From uint8 ``(n_tiles, height, width, 3)`` to logits, preprocessing inside; or from features.
        classes: Class names in the order of the logits.
        abstain_below: Probability of the label below which the model abstains, or None if it knows none.
        n_features: How many of each tile it takes, if it takes features and not tiles; else 0.
    """

    def __init__(self, network: torch.nn.Module, facts: dict[str, Any], device: torch.device) -> None:
        self.network = network
        self.classes: list[str] = facts["classes"]
        self.abstain_below: float | None = facts.get("abstain_below")
        kind, _, width = str(facts.get("backbone")).partition(":")
        self.n_features = int(width) if kind == _FEATURES else 0
        self._device = device

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return a table with one row per tile: ``label``, then ``prob_<class>`` in class order.

        Args:
            model_input: ``(n_tiles, size, size, 3)`` uint8 RGB, 0 to 255; or encoded images: a table with one column
                ``image`` of PNG, JPEG or TIFF files, as bytes or in base64, all of one size. Of a model that takes features
                ``(n_tiles, n_features)`` numbers.
            params: ``{"abstain": True}`` adds a column ``abstain``: true where the label should be left to a person, for its
                probability is below the threshold above which validation tiles show 99 % accuracy.

        Raises:
            MlflowException: The tiles are of another type, range or shape, or can't be decoded; floats are refused and never
                truncated. Nothing is returned of the other rows.
            MlflowException: ``abstain`` is asked for and the validation tiles show that accuracy above no threshold.
        """
        batches: Iterator[NDArray[Any]]
        batches = feature_batches_of(model_input, self.n_features) if self.n_features else batches_of(model_input)
        is_abstaining = bool((params or {}).get("abstain", False))
        if is_abstaining and self.abstain_below is None:
            raise MlflowException.invalid_parameter_value(
                "abstain: the validation tiles of this model don't show 99 % accuracy above any threshold; leave `abstain` out"
            )
        nothing = np.empty((0, len(self.classes)))
        probabilities = np.concatenate([nothing, *(self._probabilities(batch) for batch in batches)])
        table = pd.DataFrame(probabilities, columns=[f"prob_{name}" for name in self.classes])
        # Typed as the signature has it, for of no tiles pandas knows no type.
        table.insert(0, "label", pd.Series([self.classes[k] for k in probabilities.argmax(axis=1)], dtype=str))
        if is_abstaining:
            table["abstain"] = probabilities.max(axis=1) < self.abstain_below
        return table

    @torch.inference_mode()
    def _probabilities(self, tiles: NDArray[Any]) -> NDArray[np.float64]:
        with in_full_fp32():
            logits = self.network(torch.from_numpy(tiles).to(self._device))
        return torch.softmax(logits.double(), dim=1).cpu().numpy()


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> ServedModel:
    """Load the model; called by MLflow with the model's data folder.

    The device is ``model_config={"device": ...}``, or ``MLFLOW_DEFAULT_PREDICTION_DEVICE``, or a GPU if there is one.

    Raises:
        MlflowException: The weights, or this loader, are not those that were logged together, or a backbone that the model may
            not hold is not where its user keeps it.
    """
    facts = json.loads((Path(path) / FACTS_FILE).read_text())
    if facts["loader_sha256"] != _OWN_SHA256:
        raise MlflowException(
            f"the loader {Path(__file__).parent} is not the one that {path} was logged with; fetch both again"
        )
    with (Path(path) / WEIGHTS_FILE).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != facts["weights_sha256"]:
        raise MlflowException(f"{path}/{WEIGHTS_FILE} is not the file that was logged: its SHA-256 is {found}; fetch it again")
    if {file.name for file in Path(path).iterdir()} != {FACTS_FILE, WEIGHTS_FILE}:
        raise MlflowException(f"{path} holds more than {FACTS_FILE} and {WEIGHTS_FILE}, such as a pickle; fetch it again")
    # MLflow checks it only where MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false, which is not its default.
    mlflow.pytorch._validate_pt2_archive_is_pickle_free(str(Path(path) / WEIGHTS_FILE))
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = (model_config or {}).get("device") or os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") or automatic
    device = torch.device(wanted)
    # Loaded where it was exported, the CPU, and moved then: its graph names no device.
    network: torch.nn.Module = fold_graph(mlflow.pytorch.load_model(str(Path(path).parent)))
    if (reference := facts.get(REFERENCE)) is not None:
        kept = find_kept(reference)
        mlflow.pytorch._validate_pt2_archive_is_pickle_free(str(kept))
        network = torch.nn.Sequential(fold_graph(torch.export.load(kept).module()), network)
    network = network.to(device).to(memory_format=torch.channels_last)
    return ServedModel(network, facts, device)
