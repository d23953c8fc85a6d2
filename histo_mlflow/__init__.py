"""Classifiers of histology tiles: trained, cross-validated, evaluated and registered with MLflow at the centre.

Each job of the command line is a function here too, with the same names as keywords:
``histo_mlflow.train(data="tiles.npz", epochs=5)`` returns what it has found.
``histo_mlflow.report(labels, probabilities, images)`` makes the report for anybody's model.
"""

import os
from typing import Any

__version__ = "0.1.0"

# Before MLflow is imported: it reports usage to its makers unless told not to. Who wants that sets the variable to false.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def __getattr__(name: str) -> Any:
    """Return the job of that name as a function."""
    from histo_mlflow.jobs import as_function, find_jobs

    if name.startswith("_") or name not in find_jobs():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = as_function(name)
    if name == "report":
        from histo_mlflow.pipeline.own_report import with_own

        return with_own(function)
    return function


def __dir__() -> list[str]:
    from histo_mlflow.jobs import find_jobs

    return sorted([*globals(), *find_jobs()])
