"""What two runs have learnt, compared bit for bit."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from histo_mlflow.tracking.store import Store

_DIFFERS = {"train/tiles_per_second"}


def weights(store: Store, run_id: str, name: str) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        return load_file(store.client.download_artifacts(run_id, f"checkpoints/{name}", folder))


def assert_same_weights(store: Store, resumed: str, whole: str) -> None:
    """Each checkpoint of the one is that of the other."""
    names = {Path(item.path).name for item in store.client.list_artifacts(whole, "checkpoints")}
    assert {Path(item.path).name for item in store.client.list_artifacts(resumed, "checkpoints")} == names
    for name in sorted(names - {"last.pt"}):
        one, other = weights(store, resumed, name), weights(store, whole, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def assert_same_metrics(store: Store, resumed: str, whole: str) -> None:
    """Every metric of the one was logged at the same steps, once each, and with the same values."""
    names = store.client.get_run(whole).data.metrics.keys()
    assert store.client.get_run(resumed).data.metrics.keys() == names
    # Of those that stand for a run the last value counts; while it learns they are of the best epoch so far.
    at_a_glance = {name for name in names if name.startswith("at_a_glance/")}
    one, other = (store.client.get_run(each).data.metrics for each in (resumed, whole))
    assert {name: one[name] for name in at_a_glance} == {name: other[name] for name in at_a_glance}
    for name in names - at_a_glance:
        one, other = (
            sorted((m.step, m.value) for m in store.client.get_metric_history(each, name)) for each in (resumed, whole)
        )
        assert [step for step, _ in one] == [step for step, _ in other], f"{name} of {resumed}: {one}, {other}"
        assert name in _DIFFERS or str(one) == str(other), name
