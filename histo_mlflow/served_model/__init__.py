"""The code that travels inside a logged model: from uint8 tiles to a table of labels and probabilities.

A copy of this folder lies in every logged model, under a name that holds a hash of its content, and is imported from there in
environments without histo-mlflow; so it imports nothing but mlflow and what the model requires, and never the rest of the
package.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

FACTS_FILE = "model.json"
WEIGHTS_FILE = "model.pt2"

_BATCH_TILES = 128


class ServedModel:
    """What `mlflow.pyfunc.load_model` wraps.

    Attributes:
        network: From uint8 ``(n_tiles, height, width, 3)`` to logits, preprocessing inside.
        classes: Class names in the order of the logits.
        abstain_below: Probability of the label below which the model abstains, or None if it knows none.
    """

    def __init__(self, network: torch.nn.Module, classes: list[str], abstain_below: float | None, device: torch.device) -> None:
        self.network = network
        self.classes = classes
        self.abstain_below = abstain_below
        self._device = device

    def predict(self, model_input: NDArray[np.uint8], params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return a table with one row per tile: ``label``, then ``prob_<class>`` in class order.

        Args:
            model_input: ``(n_tiles, height, width, 3)`` uint8 RGB, 0 to 255.
            params: ``{"abstain": True}`` adds a column ``abstain``: true where the label should be left to a person, for its
                probability is below the threshold that was chosen on validation tiles for 99 % accuracy.

        Raises:
            MlflowException: ``abstain`` is asked for and no threshold reaches that accuracy.
            MlflowException: The tiles are of another type or shape; floats are refused and never truncated.
        """
        tiles = np.asarray(model_input)
        if tiles.dtype != np.uint8:
            raise MlflowException.invalid_parameter_value(
                f"tiles are {tiles.dtype}; give uint8 RGB from 0 to 255 (tiles in [0, 1] times 255, rounded, as uint8)"
            )
        if tiles.ndim != 4 or tiles.shape[3] != 3:
            raise MlflowException.invalid_parameter_value(
                f"tiles have shape {tiles.shape}; (n_tiles, height, width, 3) is needed"
            )
        is_abstaining = bool((params or {}).get("abstain", False))
        if is_abstaining and self.abstain_below is None:
            raise MlflowException.invalid_parameter_value(
                "abstain: no threshold reaches 99 % accuracy on the validation tiles of this model; leave `abstain` out"
            )
        probabilities = self._probabilities(tiles)
        table = pd.DataFrame(probabilities, columns=[f"prob_{name}" for name in self.classes])
        table.insert(0, "label", [self.classes[k] for k in probabilities.argmax(axis=1)])
        if is_abstaining:
            table["abstain"] = probabilities.max(axis=1) < self.abstain_below
        return table

    @torch.inference_mode()
    def _probabilities(self, tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
        parts = [np.empty((0, len(self.classes)))]
        for start in range(0, len(tiles), _BATCH_TILES):
            batch = torch.from_numpy(np.array(tiles[start : start + _BATCH_TILES]))
            logits = self.network(batch.to(self._device))
            parts.append(torch.softmax(logits.double(), dim=1).cpu().numpy())
        return np.concatenate(parts)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> ServedModel:
    """Load the model; called by MLflow with the model's data folder.

    The device is ``model_config={"device": ...}``, or ``MLFLOW_DEFAULT_PREDICTION_DEVICE``, or a GPU if there is one.
    """
    facts = json.loads((Path(path) / FACTS_FILE).read_text())
    with (Path(path) / WEIGHTS_FILE).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != facts["weights_sha256"]:
        raise MlflowException(f"{path}/{WEIGHTS_FILE} is not the file that was logged: its SHA-256 is {found}; fetch it again")
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = (model_config or {}).get("device") or os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") or automatic
    device = torch.device(wanted)
    # Loaded where it was exported, the CPU, and moved then: its graph names no device.
    network = mlflow.pytorch.load_model(str(Path(path).parent)).to(device)
    return ServedModel(network, facts["classes"], facts.get("abstain_below"), device)
