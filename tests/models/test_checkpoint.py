import copy
import json
import os
import re
import resource
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from histo_mlflow.errors import RequestError, TileFormatError, WorkError
from histo_mlflow.learning.optimiser import make_average, make_optimizer, make_scheduler
from histo_mlflow.learning.options import FitOptions
from histo_mlflow.learning.ranks import ALONE
from histo_mlflow.learning.state import TrainingState
from histo_mlflow.models.backbones import DEFAULT_BACKBONE
from histo_mlflow.models.checkpoint import FACTS_KEY, load_state, load_weights, save_state, save_weights
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts

FACTS = ModelFacts(("a", "b"), 32, "0" * 64, is_synthetic=True, epoch=3, val_loss=0.25)


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
        make_scheduler(optimizer, [9]),
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
    with pytest.raises(TileFormatError, match=r"not a whole training state .*weights=runs:/"):
        load_state(tmp_path / "last.pt")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(TileFormatError, match="not a training state"):
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
    with pytest.raises(TileFormatError, match=r"names 1000000 classes and has weights for 2|not a possible size"):
        load_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"classes": ["a", "a"]}, "not all different"),
        ({"classes": ["h\u00e4", "ha\u0308"]}, "not all different"),
        ({"classes": "ab"}, "classes=ab is not tuple"),
        ({"classes": [1, 2]}, "classes=1 is not str"),
        ({"epoch": "three"}, "epoch=three is not int"),
        ({"val_loss": "low"}, "val_loss=low is not float"),
        ({"backbone": "torchvision:no_such"}, "not a classifier of torchvision's"),
        ({"tile_size_px": True}, "tile_size_px=True is not int"),
    ],
)
def test_a_header_with_values_of_another_kind_is_refused(tmp_path: Path, facts: dict[str, object], reason: str) -> None:
    header = {FACTS_KEY: json.dumps({**asdict(FACTS), **facts})}
    save_file({"backbone.classifier.1.weight": torch.zeros(2, 3)}, tmp_path / "a.safetensors", metadata=header)
    with pytest.raises(RequestError, match=re.escape(reason)):
        load_weights(tmp_path / "a.safetensors")


def test_a_header_of_before_there_were_backbones_is_read(tmp_path: Path, network: TileClassifier) -> None:
    old = {"classes": ["a", "b"], "tile_size_px": 32, "epoch": 3, "val_loss": 0.25, "data_fingerprint": "0" * 64}
    header = {FACTS_KEY: json.dumps({**old, "is_synthetic": True, "architecture": "efficientnet_b3"})}
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors", metadata=header)
    again, facts = load_weights(tmp_path / "a.safetensors")
    assert facts == FACTS
    assert again.backbone_name == facts.backbone == DEFAULT_BACKBONE


def test_class_names_of_an_older_file_are_composed(tmp_path: Path, network: TileClassifier) -> None:
    save_weights(tmp_path / "a.safetensors", network, replace(FACTS, classes=("Schleimha\u0308ute", "b")))
    assert load_weights(tmp_path / "a.safetensors")[1].classes == ("Schleimh\u00e4ute", "b")


def test_an_archive_that_inflates_is_refused(tmp_path: Path) -> None:
    torch.save({"random_states": [], "x": torch.zeros(1000)}, tmp_path / "sound.pt")
    with (
        zipfile.ZipFile(tmp_path / "sound.pt") as sound,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as other,
    ):
        for info in sound.infolist():
            other.writestr(info.filename, sound.read(info))
    with pytest.raises(TileFormatError, match="it is compressed"):
        load_state(tmp_path / "a.pt")


def test_a_pipe_in_place_of_a_state_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "last.pt")
    with pytest.raises(TileFormatError, match="there is no such file"):
        load_state(tmp_path / "last.pt")


def _small_state(seed: int) -> TrainingState:
    torch.manual_seed(seed)
    network = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(network, FitOptions(epochs=2))
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return TrainingState(
        network, None, optimizer, make_scheduler(optimizer, [9]), torch.Generator().manual_seed(seed), epoch=seed
    )


DAMAGED_PARTS = {
    "scheduler": None,
    "generator": torch.zeros(3, dtype=torch.uint8),
    "epoch": "x",
    "best_weights": {"weight": torch.zeros(9)},
    "random_states": [{"cpu": torch.zeros(3, dtype=torch.uint8)}],
    "optimizer": None,
}


@pytest.mark.parametrize("part", DAMAGED_PARTS)
def test_a_state_is_taken_over_whole_or_not_at_all(part: str) -> None:
    content = copy.deepcopy(_small_state(1).capture(ALONE)) | {part: DAMAGED_PARTS[part]}
    state = _small_state(2)
    before = copy.deepcopy(state.capture(ALONE))
    with pytest.raises(TileFormatError, match="does not fit this training"):
        state.restore(content, ALONE)
    after = state.capture(ALONE)
    assert torch.equal(after["network"]["weight"], before["network"]["weight"])
    assert torch.equal(after["optimizer"]["state"][0]["exp_avg"], before["optimizer"]["state"][0]["exp_avg"])
    assert torch.equal(after["generator"], before["generator"])
    assert torch.equal(after["random_states"][0]["cpu"], before["random_states"][0]["cpu"])
    assert (after["epoch"], after["best_weights"], after["scheduler"]) == (2, {}, before["scheduler"])


def test_moments_of_other_shapes_are_refused_before_the_first_step() -> None:
    content = copy.deepcopy(_small_state(1).capture(ALONE))
    content["optimizer"]["state"][0]["exp_avg"] = torch.zeros(7)
    with pytest.raises(TileFormatError, match=r"exp_avg of the optimizer has shape \(7,\)"):
        _small_state(2).restore(content, ALONE)
