"""Where it is kept: runs, artifacts and registered models in MLflow; knows nothing of tiles or training."""
