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
    for name in names:
        one, other = (
            sorted((m.step, m.value) for m in store.client.get_metric_history(each, name)) for each in (resumed, whole)
        )
        assert [step for step, _ in one] == [step for step, _ in other], f"{name} of {resumed}: {one}, {other}"
        assert name in _DIFFERS or str(one) == str(other), name
