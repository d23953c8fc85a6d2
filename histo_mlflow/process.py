"""How a command line of ours sets its process up before anything large is imported: memory, and what libraries may do."""

import os

from histo_mlflow.learning.allocator import map_large_tensors


def prepare() -> None:
    """Set memory up, draw without a screen, and let MLflow load no pickle unless the user's environment says otherwise."""
    map_large_tensors()
    # A notebook hands its own backend on, which is often not installed here; what is drawn here becomes a file.
    os.environ["MPLBACKEND"] = "agg"
    # A pickle runs code when it is loaded; no model of ours holds one.
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
