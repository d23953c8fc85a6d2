"""How often a labelled test set was looked at: every scoring is a look, and many looks make the figures optimistic."""

from histo_mlflow.tracking.runs import LOOKS_TAG, Run
from histo_mlflow.tracking.store import Store

_FINGERPRINT_TAG = "histo.test_fingerprint"
_PAGE = 1000


def note_looks(run: Run, fingerprint: str, looks: int) -> None:
    """Note on `run` how often it has scored the set so far."""
    run.set_tags({_FINGERPRINT_TAG: fingerprint, LOOKS_TAG: looks})


def count_looks(store: Store, fingerprint: str) -> int:
    """Return how often models were scored on the set with this fingerprint, in all experiments of the store."""
    total, token = 0, None
    experiment_ids = [experiment.experiment_id for experiment in store.client.search_experiments()]
    while True:
        page = store.client.search_runs(
            experiment_ids, f"tags.`{_FINGERPRINT_TAG}` = '{fingerprint}'", max_results=_PAGE, page_token=token
        )
        total += sum(int(run.data.tags.get(LOOKS_TAG, 0)) for run in page)
        token = page.token
        if not token:
            return total
