"""Search for good settings with Optuna; the only place that knows of it."""
