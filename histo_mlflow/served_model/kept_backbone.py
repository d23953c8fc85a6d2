"""The backbone of a model that may not hold it: where its user keeps it, and what is said when it is not there."""

import hashlib
import os
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

FOLDER_VARIABLE = "HISTO_BACKBONES_DIR"


def backbones_folder() -> Path:
    """Return the folder of backbones that may not be passed on: ``HISTO_BACKBONES_DIR``, or one in the user's cache folder."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "histo-mlflow" / "backbones")


def find_kept(reference: dict[str, Any]) -> Path:
    """Return the file of the backbone that a model refers to.

    Args:
        reference: ``file`` (its name), ``sha256``, ``name`` of the backbone and ``licence``.

    Raises:
        MlflowException: It is not there, or is another one.
    """
    if Path(reference["file"]).name != reference["file"]:
        raise MlflowException.invalid_parameter_value(f"{reference['file']!r} is not the name of a file")
    file = backbones_folder() / str(reference["file"])
    about = f"the backbone {reference['name']} (licence: {reference['licence']}), which this model may not hold,"
    if not file.is_file():
        raise MlflowException.invalid_parameter_value(
            f"{about} is not at {file}; copy {reference['file']} there from where the model was trained, or name the folder "
            f"that holds it in {FOLDER_VARIABLE}"
        )
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != reference["sha256"]:
        raise MlflowException.invalid_parameter_value(
            f"{about} is not the one at {file}: its SHA-256 is {found}, not {reference['sha256']}; copy it again"
        )
    return file
