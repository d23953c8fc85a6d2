"""Where a run can be looked at: its address in MLflow's pages, if a server shows them."""

from histo_mlflow.tracking.runs import Run


def address_of(run: Run) -> str:
    """Return the address of the page of a run, or "" where the store is a file that no server is known to show."""
    uri = run.store.uri
    if not uri.startswith(("http://", "https://")):
        return ""
    experiment = run.store.client.get_run(run.id).info.experiment_id
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run.id}"
