import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from histo_mlflow.errors import RequestError, TileFormatError, WorkError
from histo_mlflow.learning.checkpoints import FACTS_KEY, CheckpointFacts, load_state, load_weights, save_state, save_weights
from histo_mlflow.learning.distributed import ALONE
from histo_mlflow.learning.network import TileClassifier
from histo_mlflow.learning.optimization import FitOptions, make_average, make_optimizer, make_scheduler
from histo_mlflow.learning.state import TrainingState

FACTS = CheckpointFacts(("a", "b"), 32, epoch=3, val_loss=0.25, data_fingerprint="0" * 64, is_synthetic=True)


@pytest.fixture(scope="module")
def network() -> TileClassifier:
    return TileClassifier(n_classes=2, tile_size_px=32).eval()


def test_weights_and_facts_come_back(tmp_path: Path, network: TileClassifier) -> None:
    save_weights(tmp_path / "a.safetensors", network.to(memory_format=torch.channels_last), FACTS)
    again, facts = load_weights(tmp_path / "a.safetensors")
    assert facts == FACTS
    tiles = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(again(tiles), network(tiles))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_state_is_loaded_without_unpickling_objects(tmp_path: Path, network: TileClassifier) -> None:
    options = FitOptions(epochs=2, ema_decay=0.5)
    optimizer = make_optimizer(network, options)
    network(torch.zeros((2, 32, 32, 3), dtype=torch.uint8)).sum().backward()
    optimizer.step()
    state = TrainingState(
        network,
        make_average(network, options),
        optimizer,
        make_scheduler(optimizer, 9),
        torch.Generator().manual_seed(3),
        epoch=3,
    )
    assert state.note_best(0.5)
    save_state(tmp_path / "last.pt", {**state.capture(ALONE), "history": {"val/loss": [0.7, 0.5]}})

    content = load_state(tmp_path / "last.pt")
    assert (content["epoch"], content["best_epoch"], content["best_val_loss"]) == (3, 3, 0.5)
    assert content["history"] == {"val/loss": [0.7, 0.5]}
    assert torch.equal(content["generator"], state.generator.get_state())
    assert content["optimizer"]["state"]
    assert content["average"].keys() >= {"n_averaged"}
    assert torch.equal(content["best_weights"]["backbone.classifier.1.bias"], network.backbone.classifier[1].bias)


def test_a_damaged_state_is_refused_with_a_way_on(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(TileFormatError, match=r"no whole training state .*weights=runs:/"):
        load_state(tmp_path / "last.pt")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(TileFormatError, match="no training state"):
        load_state(tmp_path / "other.pt")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("no")
    with pytest.raises(TileFormatError, match=r"a\.safetensors is not a checkpoint"):
        load_weights(tmp_path / "a.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(RequestError, match="without class names"):
        load_weights(tmp_path / "b.safetensors")


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, network: TileClassifier) -> None:
    file = tmp_path / "a.safetensors"
    save_weights(file, network, FACTS)
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(WorkError, match=r"can't write .*a\.safetensors"):
            save_weights(file, network, FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("facts", [{"classes": [f"c{k}" for k in range(1_000_000)]}, {"tile_size_px": 1_000_000}])
def test_a_header_that_asks_for_a_huge_network_is_refused_before_it_is_made(tmp_path: Path, facts: dict[str, object]) -> None:
    known = {
        "classes": ["a", "b"],
        "tile_size_px": 32,
        "epoch": 1,
        "val_loss": 1.0,
        "data_fingerprint": "f",
        "is_synthetic": True,
    }
    header = {FACTS_KEY: json.dumps({**known, **facts})}
    save_file({"backbone.classifier.1.weight": torch.zeros(2, 3)}, tmp_path / "a.safetensors", metadata=header)
    with pytest.raises(TileFormatError, match="which its weights don't fit"):
        load_weights(tmp_path / "a.safetensors")
