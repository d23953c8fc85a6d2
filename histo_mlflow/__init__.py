"""Classifiers of histology tiles: trained, cross-validated, evaluated and registered with MLflow at the centre."""

import os

__version__ = "0.1.0"

# Before MLflow is imported: it reports usage to its makers unless told not to. Who wants that sets the variable to false.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
