"""Classifiers of histology tiles: trained, cross-validated, evaluated and registered with MLflow at the centre.

    import histo_mlflow as histo

    trained = histo.train(data="tiles.npz", epochs=5)   # each job of the command line, with the same names as keywords
    model = histo.load("models:/histo-b3/Production")   # a model that answers with labels and probabilities
    model("folder_of_tiles")

Nothing heavy is imported before it is asked for.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from histo_mlflow.pipeline.loaded import LoadedModel

__version__ = "0.1.0"

# Before MLflow is imported: it reports usage to its makers unless told not to. Who wants that sets the variable to false.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def load(model: str, *, device: str = "auto") -> "LoadedModel":
    """Return a model that is ready to be asked: ``load("models:/histo-b3/Production")(tiles)`` is a table.

    Args:
        model: ``models:/histo-b3/Production``, ``models:/NAME/VERSION``, ``models:/NAME@ALIAS``, a run id, or a path to a
            checkpoint or a model folder.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        RequestError: There is no such model, or no such device.
    """
    from histo_mlflow.pipeline.loaded import load_ready

    return load_ready(model, device=device)


def __getattr__(name: str) -> Any:
    """Return the job of that name as a function."""
    from histo_mlflow.jobs import as_function, find_jobs

    if name == "__all__":
        return ["load", *(job.function_name for job in find_jobs().values())]
    found = [] if name.startswith("_") else [job.name for job in find_jobs().values() if job.function_name == name]
    if not found:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = as_function(found[0])
    if name == "report":
        from histo_mlflow.pipeline.own_report import with_own

        return with_own(function)
    return function


def __dir__() -> list[str]:
    from histo_mlflow.jobs import find_jobs

    return sorted([*globals(), *(job.function_name for job in find_jobs().values())])
