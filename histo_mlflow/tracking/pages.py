"""Links to MLflow's pages from within them; knows neither runs nor stores."""

_KIND = "?workflowType=machine_learning"
"""Without this MLflow 3.17 opens a page among its tools for language models, and calls runs evaluations."""


def page_of_run(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """Return the page of a run, or of an artifact of it."""
    return f"#/experiments/{experiment_id}/runs/{run_id}{f'/artifacts/{artifact}' if artifact else ''}{_KIND}"


def runs_page(experiment_id: str) -> str:
    """Return the page that lists the runs of an experiment."""
    return f"#/experiments/{experiment_id}/runs{_KIND}"


def version_page(name: str, version: str) -> str:
    """Return the page of a version of a registered model."""
    return f"#/models/{name}/versions/{version}{_KIND}"
